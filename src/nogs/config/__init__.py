"""Configuration: one frozen dataclass a stage, groups of options that stages share, and bounds of numbers."""
