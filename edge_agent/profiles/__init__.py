"""Kinds of device: what each has, and what an agent may take of it, from files that inherit from one another."""

from edge_agent.profiles.board import Board, misfits
from edge_agent.profiles.configured import completed_by_profile
from edge_agent.profiles.files import detected_profile, profile_file, read_profile, shipped_profiles
from edge_agent.profiles.profile import (
    CrashesPerDay,
    Device,
    Duration,
    HoursOn,
    Limits,
    Measured,
    Profile,
    Rate,
    SamplesPerHour,
    SimulationSettings,
)

__all__ = [
    "Board",
    "CrashesPerDay",
    "Device",
    "Duration",
    "HoursOn",
    "Limits",
    "Measured",
    "Profile",
    "Rate",
    "SamplesPerHour",
    "SimulationSettings",
    "completed_by_profile",
    "detected_profile",
    "misfits",
    "profile_file",
    "read_profile",
    "shipped_profiles",
]
