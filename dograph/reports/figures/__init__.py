"""Pictures of a run as matplotlib Figures; pure functions without pyplot's global state."""
