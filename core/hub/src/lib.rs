//! The model catalog: where models come from and where they are kept.
