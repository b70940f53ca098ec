//! The main job with the AMPLIFY model.
