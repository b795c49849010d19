//! Model architectures, written once against Backend.
