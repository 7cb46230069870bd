"""Which cut each device of a fleet trains with, by its profile, before there is a fleet. docs/split-learning.md"""
