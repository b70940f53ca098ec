//! Keeps parameters from being sent, by name.
