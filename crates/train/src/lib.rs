//! Training of a classifier from labelled text, on the CPU, reproducibly.
//!
//! Takes a [`Recipe`] and a folder of JSONL files; gives a Hugging Face model directory. Every random choice
//! follows from the recipe's seed, so the same recipe and data give the same model, even when the run was
//! interrupted and resumed. The server does not use this module.

#![forbid(unsafe_code)]

mod augment;
mod batches;
mod checkpoint;
mod classifier;
mod counterfactuals;
pub mod data;
mod error;
pub mod evaluation;
mod export;
mod foreign;
mod fragments;
mod labelled;
mod limits;
mod network;
mod operations;
mod optimizer;
mod random;
pub mod recipe;
mod run;
mod trainer;
mod vocabulary;

pub use classifier::Classifier;
pub use error::TrainError;
pub use recipe::Recipe;
pub use run::{Progress, SetEvaluation, Summary, TrainOptions, TrainReport, run};
