//! GGUF files: header, metadata, tensor index, zero-copy memory map.
