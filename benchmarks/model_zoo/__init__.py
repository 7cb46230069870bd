"""Forty small models of the kinds that people bring: does each one train exactly, and how fast?"""
