//! AdamW over plain slices, and the learning rate's course.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::network::Parameter;
use super::recipe::Schedule;

const MEAN_DECAY: f32 = 0.9;
const VARIANCE_DECAY: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Gives the learning rate when `done` of the run is over, 0 to 1: a linear rise during warm-up, then
/// a linear fall to zero.
pub(crate) fn learning_rate(schedule: &Schedule, done: f64) -> f64 {
    let warm_up = schedule.warm_up;
    let share = if done < warm_up {
        done / warm_up
    } else {
        (1.0 - done) / (1.0 - warm_up)
    };
    schedule.learning_rate * share
}

/// One weight with its running moments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slot {
    /// The weight's values.
    pub(crate) weight: Vec<f32>,
    /// The running mean of its gradient.
    pub(crate) mean: Vec<f32>,
    /// The running mean of its squared gradient.
    pub(crate) variance: Vec<f32>,
}

/// Adam with decoupled weight decay. Slots are in the order of the network's parameters.
#[derive(Debug)]
pub(crate) struct AdamW {
    /// The state of each parameter.
    pub(crate) slots: Vec<Slot>,
    /// Steps taken.
    pub(crate) steps: usize,
    weight_decay: f32,
    norm_max: f32,
}

impl AdamW {
    /// Starts from the network's present weights with empty moments.
    ///
    /// # Errors
    /// When a weight cannot be read.
    pub(crate) fn new(parameters: &[Parameter], schedule: &Schedule) -> Result<Self> {
        let slot = |parameter: &Parameter| {
            let weight = super::operations::values(parameter.value.as_tensor())?;
            let zeros = vec![0.0; weight.len()];
            Ok(Slot {
                weight,
                mean: zeros.clone(),
                variance: zeros,
            })
        };
        Ok(Self {
            slots: parameters.iter().map(slot).collect::<Result<_>>()?,
            steps: 0,
            weight_decay: schedule.weight_decay as f32,
            norm_max: schedule.gradient_norm_max as f32,
        })
    }

    /// Takes one step along `gradients` (one for each parameter, in order) and writes the weights
    /// back into the network.
    ///
    /// # Errors
    /// When a weight cannot be written.
    pub(crate) fn step(
        &mut self,
        parameters: &[Parameter],
        gradients: &[Vec<f32>],
        learning_rate: f64,
    ) -> Result<()> {
        self.steps += 1;
        let squares: f32 = gradients
            .iter()
            .map(|g| g.iter().map(|v| v * v).sum::<f32>())
            .sum();
        let clip = (self.norm_max / squares.sqrt().max(f32::MIN_POSITIVE)).min(1.0);
        // Past 2^31 steps the corrections are 1 anyway.
        let exponent = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let mean_correction = 1.0 - MEAN_DECAY.powi(exponent);
        let variance_correction = 1.0 - VARIANCE_DECAY.powi(exponent);
        let rate = learning_rate as f32;
        let decay = self.weight_decay;
        self.slots
            .par_iter_mut()
            .zip(parameters)
            .zip(gradients)
            .try_for_each(|((slot, parameter), gradient)| {
                let shrink = if parameter.decays() {
                    1.0 - rate * decay
                } else {
                    1.0
                };
                let moments = slot.mean.iter_mut().zip(slot.variance.iter_mut());
                for ((weight, (mean, variance)), gradient) in
                    slot.weight.iter_mut().zip(moments).zip(gradient)
                {
                    let gradient = gradient * clip;
                    *mean = MEAN_DECAY * *mean + (1.0 - MEAN_DECAY) * gradient;
                    *variance =
                        VARIANCE_DECAY * *variance + (1.0 - VARIANCE_DECAY) * gradient * gradient;
                    let deviation = (*variance / variance_correction).sqrt() + EPSILON;
                    *weight = *weight * shrink - rate * (*mean / mean_correction) / deviation;
                }
                slot.write(parameter)
            })
    }
}

impl Slot {
    /// Copies the weight into the network.
    pub(crate) fn write(&self, parameter: &Parameter) -> Result<()> {
        let value = &parameter.value;
        value.set(&Tensor::from_slice(
            &self.weight,
            value.shape(),
            value.device(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn the_rate_rises_and_falls_to_zero() {
        let schedule = Schedule {
            learning_rate: 1.0,
            warm_up: 0.1,
            ..Schedule::default()
        };
        let rate = |done| learning_rate(&schedule, done);
        assert!(rate(0.01) > 0.0 && rate(0.01) < rate(0.05));
        assert!((rate(0.1) - 1.0).abs() < 1e-9);
        assert!(rate(0.5) > rate(0.9) && rate(0.9) > 0.0);
        assert!(rate(1.0).abs() < 1e-9);
    }

    #[test]
    fn a_parabola_is_descended() -> Result<()> {
        let value = Var::from_vec(vec![3.0_f32, -2.0], (1, 2), &Device::Cpu)?;
        let parameters = [Parameter {
            name: "x".into(),
            value: value.clone(),
        }];
        let mut optimizer = AdamW::new(&parameters, &Schedule::default())?;
        for _ in 0..400 {
            let gradient = super::super::operations::values(value.as_tensor())?;
            optimizer.step(&parameters, &[gradient], 0.02)?;
        }
        let left = super::super::operations::values(value.as_tensor())?;
        assert!(left.iter().all(|value| value.abs() < 0.05), "{left:?}");
        Ok(())
    }
}
