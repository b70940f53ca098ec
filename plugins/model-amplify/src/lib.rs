//! The AMPLIFY protein language model with regression heads.
