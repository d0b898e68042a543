"""Where models and samples come from, and how their files get onto this machine."""
