use super::*;
use candle_core::{D, Device, Result, Tensor, Var};

const CPU: &Device = &Device::Cpu;

fn sample(shape: &[usize], phase: f32) -> Var {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count)
        .map(|i| (i as f32 * 0.7 + phase).sin() * 2.0)
        .collect();
    Var::from_vec(values, shape, CPU).expect("values fill the shape")
}

/// Compares results and gradients (of a weighted sum) of two ways to compute the same.
fn compare(variables: &[&Var], one: &Tensor, other: &Tensor, tolerance: f32) {
    let weights = sample(one.dims(), 1.3);
    let gradients = |result: &Tensor| {
        (result * weights.as_tensor())
            .and_then(|t| t.sum_all()?.backward())
            .expect("backward")
    };
    let far = |a: &Tensor, b: &Tensor| {
        assert_eq!(a.dims(), b.dims());
        let pairs = values(a)
            .expect("values")
            .into_iter()
            .zip(values(b).expect("values"));
        // `f32::max` would ignore NaN.
        pairs
            .map(|(a, b)| (a - b).abs())
            .max_by(f32::total_cmp)
            .unwrap_or(0.0)
    };
    assert!(far(one, other) < tolerance);
    let (one, other) = (gradients(one), gradients(other));
    for variable in variables {
        let get = |grads: &candle_core::backprop::GradStore| {
            grads.get(variable).expect("has a gradient").clone()
        };
        assert!(far(&get(&one), &get(&other)) < tolerance);
    }
}

#[test]
fn layer_norm_agrees_with_elementary_operations() -> Result<()> {
    let (x, gain, shift) = (sample(&[130, 6], 0.0), sample(&[6], 0.4), sample(&[6], 0.9));
    let ours = x.apply_op3(&gain, &shift, LayerNorm { epsilon: 1e-12 })?;
    let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(1)? + 1e-12)?.sqrt()?;
    let theirs = centred
        .broadcast_div(&deviation)?
        .broadcast_mul(&gain)?
        .broadcast_add(&shift)?;
    compare(&[&x, &gain, &shift], &ours, &theirs, 2e-4);
    Ok(())
}

#[test]
fn gelu_agrees_with_candle() -> Result<()> {
    let x = sample(&[50, 6], 0.2);
    compare(&[&x], &x.apply_op1(Gelu)?, &x.gelu_erf()?, 1e-5);
    Ok(())
}

#[test]
fn add_bias_agrees_with_broadcasting() -> Result<()> {
    let (x, bias) = (sample(&[150, 6], 0.0), sample(&[6], 0.4));
    compare(
        &[&x, &bias],
        &x.apply_op2(&bias, AddBias)?,
        &x.broadcast_add(&bias)?,
        1e-4,
    );
    Ok(())
}

#[test]
fn masked_softmax_agrees_with_elementary_operations() -> Result<()> {
    let scores = sample(&[2, 2, 3, 4], 0.0);
    let off = f32::NEG_INFINITY;
    let mask = Tensor::new(&[[0f32, 0.0, 0.0, 0.0], [0.0, 0.0, off, off]], CPU)?;
    let ours = scores.apply_op2(&mask, MaskedSoftmax { scale: 0.5 })?;
    let shifted = (scores.as_tensor() * 0.5)?.broadcast_add(&mask.reshape((2, 1, 1, 4))?)?;
    let powers = shifted.exp()?;
    let theirs = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
    compare(&[&scores], &ours, &theirs, 1e-5);
    Ok(())
}
