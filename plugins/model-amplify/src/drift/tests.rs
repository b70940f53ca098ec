use super::*;

fn one(values: &[f32]) -> plugin_api::Tensor {
    plugin_api::Tensor::from_slice(&[values.len()], values).unwrap()
}

fn named(name: &str, values: &[f32]) -> Params {
    [(name, one(values))].into_iter().collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor).unwrap()
}

#[test]
fn the_proximal_term_pulls_towards_what_was_received() {
    let (held, private) = (Tensor::from_slice(&[3.0_f32, 1.0]), Tensor::from_slice(&[7.0_f32]));
    let mut drift = GradientCorrection::new([("w", &held), ("head", &private)].into_iter(), 0.5, false);
    let mut before = Tensor::from_slice(&[1.0_f32, 1.0]);
    drift.correct(0, &mut before).unwrap();
    assert_eq!(values(&before), [1.0, 1.0]); // nothing was received yet
    drift.receive(&named("w", &[1.0, 2.0]).into(), None, &DeviceContext::cpu()).unwrap();
    let mut gradients = [Tensor::from_slice(&[1.0_f32, 1.0]), Tensor::from_slice(&[2.0_f32])];
    gradients.iter_mut().enumerate().for_each(|(number, gradient)| drift.correct(number, gradient).unwrap());
    assert_eq!((values(&gradients[0]), values(&gradients[1])), (vec![2.0, 0.5], vec![2.0]));
    assert!(drift.send(&DeviceContext::cpu(), Some(0)).unwrap().is_empty());
}

/// With plain gradient steps the mean of the gradients is the paper's option II.
#[test]
fn control_variates_are_those_of_the_paper() {
    let _guard = tch::no_grad_guard();
    let mut w = Tensor::from_slice(&[0.0_f32, 0.0]);
    let mut drift = GradientCorrection::new([("w", &w)].into_iter(), 0.0, true);
    let (rate, steps, mut own) = (0.1_f32, 5, [0.0_f32; 2]);
    for (round, server) in [[0.0_f32, 0.0], [0.3, -0.2], [-1.0, 0.5]].into_iter().enumerate() {
        let start = [round as f32, -1.0];
        let extra = if round == 0 { Params::new() } else { named("scaffold.w", &server) };
        let taken = Some((round as u64).checked_sub(1));
        drift
            .receive(&Message { params: named("w", &start), extra, ..Message::default() }, taken, &DeviceContext::cpu())
            .unwrap();
        w.copy_(&Tensor::from_slice(&start));
        for _ in 0..steps {
            let mut gradient = &w * 2.0 - Tensor::from_slice(&[4.0_f32, 1.0]);
            drift.correct(0, &mut gradient).unwrap();
            let _ = w.g_sub_(&(&gradient * f64::from(rate)));
        }
        let sent = drift.send(&DeviceContext::cpu(), Some(round as u64)).unwrap();
        for (i, (end, change)) in
            values(&w).into_iter().zip(sent.elements::<f32>("scaffold.w", &[2]).unwrap()).enumerate()
        {
            let next: f32 = own[i] - server[i] + (start[i] - end) / (steps as f32 * rate);
            let expected: f32 = next - own[i];
            assert!((change - expected).abs() < 2e-5, "round {round}: {change} is not {expected}");
            own[i] = next;
        }
    }
    // Between two epochs a state holds the round's data; after the round it no longer does.
    drift
        .receive(
            &Message { extra: named("scaffold.w", &[0.5, 0.5]), ..Message::default() },
            Some(Some(2)),
            &DeviceContext::cpu(),
        )
        .unwrap();
    drift.correct(0, &mut Tensor::from_slice(&[1.0_f32, 2.0])).unwrap();
    let state_of = |drift: &GradientCorrection| {
        let mut state = State::default();
        drift.save(&DeviceContext::cpu(), &mut state).unwrap();
        state
    };
    let within = state_of(&drift);
    let mut other = GradientCorrection::new([("w", &w)].into_iter(), 0.0, true);
    let held = other.read(&within, &DeviceContext::cpu()).unwrap();
    other.restore(held);
    let [mine, others] = [&mut drift, &mut other].map(|drift| {
        let mut gradient = Tensor::from_slice(&[4.0_f32, 4.0]);
        drift.correct(0, &mut gradient).unwrap();
        (
            values(&gradient),
            drift.send(&DeviceContext::cpu(), Some(3)).unwrap().elements::<f32>("scaffold.w", &[2]).unwrap().to_vec(),
        )
    });
    assert_eq!(mine, others);
    drift.close();
    let state = state_of(&drift);
    assert_eq!(state.tensors.names().collect::<Vec<_>>(), ["scaffold.own.w", "scaffold.next.w"]);
    own.iter_mut().zip(mine.1).for_each(|(own, change)| *own += change);
    let saved = state.tensors.elements::<f32>("scaffold.next.w", &[2]).unwrap();
    assert!(saved.iter().zip(own).all(|(a, b)| (a - b).abs() < 2e-5));
    let error = drift.receive(&named("w", &[0.0, 0.0]).into(), Some(Some(3)), &DeviceContext::cpu()).unwrap_err();
    assert_eq!(error.to_string(), "`scaffold`: the server sends no control variates");
}

/// The server's `c` is the sum of what it received, so a client whose update was lost must not continue from that
/// update.
#[test]
fn a_control_variate_that_the_server_does_not_have_is_not_taken_over() {
    let w = Tensor::from_slice(&[0.0_f32]);
    let mut drift = GradientCorrection::new([("w", &w)].into_iter(), 0.0, true);
    let mut server = 0.0_f32;
    let own = |drift: &GradientCorrection| {
        let mut state = State::default();
        drift.save(&DeviceContext::cpu(), &mut state).unwrap();
        state.tensors.get("scaffold.own.w").map_or(0.0, |own| own.elements::<f32>().unwrap()[0])
    };
    // Round, gradient, and whether the update arrives. With a single client, c always equals its own variate.
    let (mut taken, mut lost_once) = (None, false);
    for (round, gradient, arrives) in [(0, 4.0, false), (1, 2.0, true), (4, 8.0, false), (5, 6.0, true), (6, 1.0, true)]
    {
        let extra = if taken.is_none() { Params::new() } else { named("scaffold.w", &[server]) };
        drift.receive(&Message { extra, ..Message::default() }, Some(taken), &DeviceContext::cpu()).unwrap();
        assert_eq!(own(&drift), server, "round {round}");
        drift.correct(0, &mut Tensor::from_slice(&[gradient])).unwrap();
        let sent = drift.send(&DeviceContext::cpu(), Some(round)).unwrap();
        drift.close();
        // A checkpoint here changes nothing.
        let mut state = State::default();
        drift.save(&DeviceContext::cpu(), &mut state).unwrap();
        let held = drift.read(&state, &DeviceContext::cpu()).unwrap();
        drift = GradientCorrection::new([("w", &w)].into_iter(), 0.0, true);
        drift.restore(held);
        let change = sent.elements::<f32>("scaffold.w", &[1]).unwrap()[0];
        assert_eq!(server + change, gradient, "round {round}");
        if arrives {
            (server, taken) = (server + change, Some(round));
        }
        lost_once |= !arrives;
    }
    assert!(lost_once);
    // The host does not report what it received: nothing counts as lost.
    drift
        .receive(&Message { extra: named("scaffold.w", &[server]), ..Message::default() }, None, &DeviceContext::cpu())
        .unwrap();
    assert_eq!(own(&drift), 1.0);
}
