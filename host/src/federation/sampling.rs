//! Which clients take part in a round.

use plugin_api::Seed;

/// The places of the clients of a round, in their order: a share of them, at least so many, drawn without replacement
/// from the experiment's seed and the round alone.
pub fn select(clients: usize, fraction: f64, at_least: usize, seed: Seed, round: u64) -> Vec<usize> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
    let share = (fraction * clients as f64).round() as usize;
    let count = share.max(at_least).clamp(1, clients.max(1)).min(clients);
    let seed = seed.of("participation").at(round);
    let mut places: Vec<usize> = (0..clients).collect();
    // The first `count` steps of a Fisher-Yates shuffle. The remainder's bias is below clients / 2^64.
    for place in 0..count {
        let step = seed.at(place as u64).value() % (clients - place) as u64;
        places.swap(place, place + step as usize);
    }
    places.truncate(count);
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_takes_part_unless_a_share_is_asked_for() {
        assert_eq!(select(4, 1.0, 1, Seed::new(1), 0), [0, 1, 2, 3]);
        for (fraction, at_least, count) in [(0.5, 1, 3), (0.01, 1, 1), (0.01, 4, 4), (0.5, 9, 6)] {
            assert_eq!(select(6, fraction, at_least, Seed::new(1), 0).len(), count);
        }
    }

    #[test]
    fn the_draw_is_fair_and_the_same_on_every_run() {
        let mut drawn = [0_u32; 10];
        for round in 0..10_000 {
            let places = select(10, 0.3, 1, Seed::new(7), round);
            assert!(places.is_sorted() && places.len() == 3);
            assert_eq!(places, select(10, 0.3, 1, Seed::new(7), round));
            places.iter().for_each(|&place| drawn[place] += 1);
        }
        // 3,000 expected each, standard deviation 46.
        assert!(drawn.iter().all(|&count| (2800..3200).contains(&count)), "{drawn:?}");
    }
}
