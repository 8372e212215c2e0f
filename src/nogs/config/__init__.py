"""Configuration: a frozen dataclass for each stage, groups of options that stages share, and bounds of numbers."""
