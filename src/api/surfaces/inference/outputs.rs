//! Predictions as output tensors.

use super::protocol::OutputName;
use super::request::RequestedOutput;
use super::tensor::{Tensor, TensorData};
use crate::model::Labels;
use crate::serving::Predictions;

/// The output tensors of predictions.
pub(super) fn tensors(predictions: &Predictions, requested: &[RequestedOutput]) -> Vec<Tensor> {
    let Predictions { labels, items, .. } = predictions;
    let rows = items.len();
    let best = || items.iter().map(|item| labels.best(&item.logits));
    let tensor = |requested: &RequestedOutput| {
        let values = |logits: &[f32]| match requested.output {
            OutputName::Logits => logits.to_vec(),
            _ => labels.in_order(logits),
        };
        let (width, data) = match (requested.output, requested.classes) {
            (OutputName::Label, _) => {
                let labels = best().map(|best| best.label.to_string());
                (None, TensorData::Bytes(labels.collect()))
            }
            (OutputName::Score, _) => (
                None,
                TensorData::Fp32(best().map(|best| best.score).collect()),
            ),
            (_, Some(classes)) => {
                let classes = classes.min(labels.len());
                let rows = items.iter();
                let rows = rows.flat_map(|item| ranked(labels, &values(&item.logits), classes));
                (Some(classes), TensorData::Bytes(rows.collect()))
            }
            (_, None) => {
                let rows = items.iter().flat_map(|item| values(&item.logits));
                (Some(labels.len()), TensorData::Fp32(rows.collect()))
            }
        };
        Tensor {
            name: requested.output.as_str(),
            shape: [Some(rows), width].into_iter().flatten().collect(),
            data,
            is_binary: requested.is_binary,
        }
    };
    requested.iter().map(tensor).collect()
}

/// The best classes as `value:index:label`.
fn ranked(labels: &Labels, values: &[f32], classes: usize) -> Vec<String> {
    let mut rows: Vec<(usize, f32)> = values.iter().copied().enumerate().collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    let names: Vec<&str> = labels.names().collect();
    let rows = rows.into_iter().take(classes);
    rows.map(|(row, value)| format!("{value:.6}:{row}:{}", names[row]))
        .collect()
}
