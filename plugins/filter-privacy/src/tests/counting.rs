//! Messages that left before an interruption count.

use super::*;

const SIGMA: f64 = 1.0;

fn send(filter: &mut Privacy, host: &Recorder, client: &str, round: u64) -> String {
    let (sent, base) = (message([("w", tensor(&[1.0_f32]))]), message([("w", tensor(&[0.0_f32]))]));
    filter.apply(sent, &base, &host.ctx(client, round)).unwrap();
    host.last_note()
}

/// A filter of another process, restored from a checkpoint.
fn resumed(state: &State) -> Privacy {
    let mut filter = gaussian(1.0, SIGMA);
    filter.restore(state, &Context::new(&Recorder::default())).unwrap();
    filter
}

fn epsilon(rounds: u64) -> String {
    format!(
        "epsilon {:.4}",
        crate::gaussian::Gaussian::new(1.0, SIGMA, 1e-5, crate::NoiseKind::Gaussian).unwrap().epsilon(rounds)
    )
}

#[test]
fn a_round_that_was_begun_and_lost_counts() {
    let host = Recorder::default();
    let begun = |count: u64| *host.attempts.lock().unwrap() = Some(count);
    let mut filter = gaussian(1.0, SIGMA);
    for round in 0..3 {
        begun(round + 1);
        let note = send(&mut filter, &host, "tm", round);
        assert!(note.contains(&epsilon(round + 1)) && !note.contains("interruption"), "{note}");
    }
    let checkpoint = filter.state(&host.ctx("tm", 2)).unwrap();
    // Rounds 3 and 4 are sent, the process is killed, and the next one repeats them.
    let mut filter = resumed(&checkpoint);
    begun(6);
    let note = send(&mut filter, &host, "tm", 3);
    assert!(note.contains(&epsilon(6)), "{note}");
    let why = "; 2 of the rounds were interrupted, after their messages may have been sent";
    assert!(note.contains("in 6 rounds") && note.ends_with(why), "{note}");
    begun(7);
    let note = send(&mut filter, &host, "tm", 4);
    assert!(note.contains(&epsilon(7)) && note.ends_with(why), "{note}");
    // Killed before any checkpoint: all started rounds count.
    begun(3);
    let note = send(&mut gaussian(1.0, SIGMA), &host, "tm", 0);
    assert!(note.contains(&epsilon(3)), "{note}");
}

#[test]
fn a_host_that_does_not_count_or_has_forgotten_takes_nothing_off() {
    let host = Recorder::default();
    let mut filter = gaussian(1.0, SIGMA);
    (0..2).for_each(|round| drop(send(&mut filter, &host, "tm", round)));
    let mut filter = resumed(&filter.state(&host.ctx("tm", 1)).unwrap());
    assert!(send(&mut filter, &host, "tm", 2).contains(&epsilon(3)));
    // A host that counts resumes the run; its journal starts only now, and is lost later.
    for (round, begun) in [(3, 1), (4, 2), (5, 1)] {
        *host.attempts.lock().unwrap() = Some(begun);
        let note = send(&mut filter, &host, "tm", round);
        assert!(note.contains(&epsilon(round + 1)), "{note}");
    }
    // At the server one instance counts for each client.
    assert!(send(&mut filter, &host, "kd", 0).contains(&epsilon(1)));
}

#[test]
fn what_no_noise_covers_is_named() {
    let host = Recorder::default();
    send(&mut gaussian(1.0, SIGMA), &host, "tm", 0);
    assert_eq!(host.last_note_of("privacy.clear"), "norms of updates before noise, and whether they were clipped");
}
