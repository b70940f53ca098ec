//! What the keys of a step change: rates, weights, clipping, accumulation, and the layers that are trained.

use super::*;

/// AdamW's first step moves each parameter by its rate, whatever the gradient. On both paths.
#[test]
fn lower_blocks_learn_more_slowly() {
    for context in [DeviceContext::cpu(), DeviceContext::simulated_gpu()] {
        let changes = json!({ "layer-decay": 0.5, "weight-decay": 0.0, "trunk-lr": 1e-2, "regressor-lr": 1e-3 });
        let mut trainer = trainer_of(context, &changes);
        let before = trainer.network.parameters.snapshot().unwrap();
        step(&mut trainer, 1);
        let after = trainer.network.parameters.snapshot().unwrap();
        let moved = |name: &str| {
            let [a, b] = [&before, &after].map(|params| params.get(name).unwrap().elements::<f32>().unwrap().to_vec());
            a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        for (name, rate) in [
            ("trunk.transformer_encoder.1.ffn.w3.weight", 1e-2),
            ("trunk.transformer_encoder.0.ffn.w3.weight", 0.5e-2),
            ("trunk.encoder.weight", 0.25e-2),
            ("regressors.0.4.weight", 1e-3),
        ] {
            assert!((moved(name) - rate).abs() < 0.02 * rate, "{name} moved by {}, not {rate}", moved(name));
        }
    }
}

/// Over the rounds, as a factor of the linear schedule; a restored state goes on where it was.
#[test]
fn warm_up_raises_the_rates_from_zero() {
    let mut trainer = trainer_of(DeviceContext::cpu(), &json!({ "warm-up": 4 }));
    let rows = [vec![3, 6, 7, 8, 4]];
    let before = trainer.network.parameters.snapshot().unwrap();
    let first = try_step(&mut trainer, &rows).unwrap().rates;
    assert_eq!((first.trunk, first.regressor), (0.0, 0.0));
    assert_eq!(max_difference(&before, &trainer.network.parameters.snapshot().unwrap()), 0.0);
    assert_eq!(try_step(&mut trainer, &rows).unwrap().rates.trunk, 1e-3 * 0.25);
    let mut resumed = trainer_of(DeviceContext::cpu(), &json!({ "warm-up": 4 }));
    resumed.restore(&trainer.state().unwrap()).unwrap();
    for expected in [0.5, 0.75, 1.0, 1.0] {
        assert_eq!(try_step(&mut resumed, &rows).unwrap().rates.trunk, 1e-3 * expected);
    }
    let later = SchedulePoint { round: 1, decay_steps: 2 };
    trainer.decayed_steps = 1;
    assert_eq!(trainer.learning_rates(later).regressor, 1e-2 * (0.5 * 0.5));
}

/// On both paths; the loss that is reported stays as it is.
#[test]
fn a_tasks_weight_is_a_factor_of_its_gradients() {
    for context in [DeviceContext::cpu(), DeviceContext::simulated_gpu()] {
        let stats = |weights: Value| tracked_step(&mut trainer_of(context, &json!({ "task-weights": weights })), 1);
        let (plain, weighted) = (stats(json!({})), stats(json!({ "tm": 2.0 })));
        let ratio = weighted.gradient_norm / plain.gradient_norm;
        assert!((ratio - 2.0).abs() < 1e-5 && weighted.loss == plain.loss, "{plain:?} {weighted:?}");
        let other = stats(json!({ "binding": 2.0 }));
        assert_eq!((other.gradient_norm, other.loss), (plain.gradient_norm, plain.loss));
    }
}

/// The rows of a step, of several lengths, in batches of `size`.
pub(super) fn accumulated(trainer: &mut Trainer, targets: &Targets, size: usize) -> StepStats {
    let rows: Vec<Vec<u32>> = (2..6).map(|n| (0..4 * n).map(|i| 5 + (i * i + n) % 20).collect()).collect();
    let dropout = DropoutRng::disabled();
    let numbers: Vec<usize> = (0..rows.len()).collect();
    let parts = numbers.chunks(size).map(|picked| {
        let sequences: Vec<&[u32]> = picked.iter().map(|&row| rows[row].as_slice()).collect();
        (Batch::new(&sequences, 0, 2048, Device::Cpu).unwrap(), of_part(targets, picked))
    });
    let parts: Vec<(Batch, Targets)> = parts.collect();
    let batches = parts.iter().map(|(batch, targets)| TrainBatch { task: "tm", batch, targets, dropout: &dropout });
    let mut resources = Resources::new(2).unwrap();
    resources.track_gradient_norm = true;
    trainer.step(&batches.collect::<Vec<_>>(), SchedulePoint::default(), &mut resources).unwrap()
}

/// The targets of these rows, with the numbers that they have in a batch of their own.
fn of_part(targets: &Targets, picked: &[usize]) -> Targets {
    let Targets::Tokens { positions, tokens } = targets else { return targets.select(picked) };
    let all = positions.iter().zip(tokens);
    let own =
        all.filter(|((row, _), _)| picked.contains(row)).map(|(&(row, at), &token)| ((row - picked[0], at), token));
    let (positions, tokens) = own.unzip();
    Targets::Tokens { positions, tokens }
}

/// Of unequal batches too, and where rows or batches have different weights. On both paths.
#[test]
fn accumulated_batches_make_the_step_of_a_large_one() {
    let classes = Targets::Classes { rows: vec![0, 0, 0, 0], weights: vec![0.5] };
    let positions = vec![(0, 7), (0, 1), (1, 0), (2, 5), (3, 19), (3, 2)];
    let tokens = Targets::Tokens { positions, tokens: vec![5, 9, 7, 26, 11, 8] };
    let numbers = Targets::Numbers(vec![1.0, -1.0, 0.5, 2.0]);
    let masked = json!({ "objective": "masked-lm" });
    for context in [DeviceContext::cpu(), DeviceContext::simulated_gpu()] {
        for (changes, targets) in [(&json!({}), &numbers), (&masked, &tokens)] {
            let [mut whole, mut parts] = [(); 2].map(|()| trainer_of(context, changes));
            for _ in 0..3 {
                let (a, b) = (accumulated(&mut whole, targets, 4), accumulated(&mut parts, targets, 3));
                assert!((a.loss - b.loss).abs() < 1e-5 * a.loss, "{changes}: {a:?} and {b:?}");
                let off = (a.gradient_norm - b.gradient_norm).abs();
                assert!(off < 1e-5 * a.gradient_norm && a.gradient_norm > 0.0, "{changes}: {a:?} and {b:?}");
            }
            let difference = max_difference(&whole.state().unwrap().tensors, &parts.state().unwrap().tensors);
            assert!(difference < 1e-4, "{changes}: parameters and moments differ by {difference}");
            assert_eq!((whole.steps(), parts.steps()), (3, 3));
        }
    }
    assert_eq!((numbers.weight(), tokens.weight(), classes.weight()), (4.0, 6.0, 2.0));
}

/// The norm of all first moments, which after the first step are a tenth of the gradients that it used.
fn used_norm(trainer: &mut Trainer) -> f64 {
    let state = trainer.state().unwrap().tensors;
    let first = state.iter().filter(|(name, _)| name.starts_with("optimizer.first."));
    let elements = first.flat_map(|(_, moment)| moment.elements::<f32>().unwrap());
    10.0 * elements.map(|&m| f64::from(m).powi(2)).sum::<f64>().sqrt()
}

/// On both paths. A norm that is small enough, and one without a limit, change no bit.
#[test]
fn a_large_gradient_is_scaled_down_to_the_norm() {
    for context in [DeviceContext::cpu(), DeviceContext::simulated_gpu()] {
        let clipped = |norm: Value, proximal: f64| {
            let changes = json!({ "clip-norm": norm, "proximal-mu": proximal, "weight-decay": 0.0 });
            let mut trainer = trainer_of(context, &changes);
            let anchor = trainer.network.parameters.snapshot().unwrap();
            // From an anchor far away, so that the proximal term is the larger part.
            let far: Params = anchor
                .iter()
                .map(|(name, tensor)| {
                    let values: Vec<f32> = tensor.elements::<f32>().unwrap().iter().map(|x| x + 1.0).collect();
                    (name, plugin_api::Tensor::from_slice(tensor.shape(), &values).unwrap())
                })
                .collect();
            trainer.receive_anchor(&far.into()).unwrap();
            let stats = tracked_step(&mut trainer, 1);
            (stats, used_norm(&mut trainer), trainer.state().unwrap().tensors)
        };
        let (plain, norm, state) = clipped(Value::Null, 0.0);
        assert!((norm - plain.gradient_norm).abs() < 1e-5 * norm, "{norm}, {plain:?}");
        let (loose, _, same) = clipped(json!(2.0 * norm), 0.0);
        // The norms are sums in another order.
        let same_norm = |a: f64, b: f64| (a - b).abs() < 1e-12 * a;
        assert!(
            max_difference(&state, &same) == 0.0 && same_norm(loose.gradient_norm, plain.gradient_norm),
            "{loose:?}"
        );
        let (tight, half, _) = clipped(json!(0.5 * norm), 0.0);
        assert!((half - 0.5 * norm).abs() < 1e-5 * norm, "{half} is not half of {norm}");
        assert!(tight.loss == plain.loss && same_norm(tight.gradient_norm, plain.gradient_norm), "{tight:?}");
        // What is clipped is the gradient with its corrections.
        let (_, far, _) = clipped(Value::Null, 1.0);
        let (_, found, _) = clipped(json!(0.5 * norm), 1.0);
        assert!(far > 2.0 * norm && (found - 0.5 * norm).abs() < 1e-5 * norm, "{found} of {far}, {norm}");
    }
}

/// They learn as they do in a trunk that learns, on both paths, and nothing else is part of a message.
#[test]
fn the_layers_above_frozen_ones_learn_alone() {
    for context in [DeviceContext::cpu(), DeviceContext::simulated_gpu()] {
        for pooling in ["tokens", "bos"] {
            let [mut all, mut upper] =
                [0, 1].map(|k| trainer_of(context, &json!({ "frozen-layers": k, "pooling": pooling })));
            let (a, b) = (tracked_step(&mut all, 1), tracked_step(&mut upper, 1));
            assert!(a.loss == b.loss && a.gradient_norm > b.gradient_norm, "{a:?} {b:?}");
            let [all, state] = [&mut all, &mut upper].map(|trainer| trainer.state().unwrap().tensors);
            let is_frozen =
                |name: &str| name.contains("trunk.encoder.") || name.contains("trunk.transformer_encoder.0.");
            assert!(all.names().any(is_frozen) && !state.names().any(is_frozen));
            assert_eq!(state.len(), all.names().filter(|name| !is_frozen(name)).count());
            for (name, tensor) in state.iter() {
                assert_eq!(tensor.buffer().as_slice(), all.get(name).unwrap().buffer().as_slice(), "{name}");
            }
            // The next steps differ, since the layers below do. Those stay.
            let before = upper.network.parameters.snapshot_of(is_frozen).unwrap();
            tracked_step(&mut upper, 2);
            assert_eq!(max_difference(&before, &upper.network.parameters.snapshot_of(is_frozen).unwrap()), 0.0);
        }
    }
}
