//! Loads the model that the settings name.

use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::engine::{self, Loaded};
use crate::metrics::Metrics;
use crate::model::Checkpoint;
use crate::serving::Prepared;

/// Loads a model and its engine, once at the start and again for each reload.
pub(super) type ModelLoader = Arc<dyn Fn() -> Prepared + Send + Sync>;

/// A loader for the model that `config` names. It publishes the duration of each phase.
pub(super) fn model_loader(config: &Config, metrics: &Metrics) -> ModelLoader {
    let (model, limits) = (config.model.clone(), config.limits.batch);
    let startup = metrics.startup_seconds.clone();
    Arc::new(move || {
        let start = Instant::now();
        let checkpoint = Checkpoint::open_or_embedded(model.model.as_deref())?;
        let opened = start.elapsed();
        let loaded = engine::load(&checkpoint, model.engine_options(limits))?;
        let Loaded { engine, place, .. } = loaded;
        let parts = [("checkpoint", opened)].into_iter().chain(loaded.phases);
        for (phase, took) in parts.chain([("total", start.elapsed())]) {
            tracing::debug!(phase, ?took, "startup");
            let gauge = startup.with_label_values(&[phase]);
            gauge.set(took.as_secs_f64());
        }
        tracing::info!(took = ?start.elapsed(), "running on {place}");
        Ok((checkpoint, engine))
    })
}
