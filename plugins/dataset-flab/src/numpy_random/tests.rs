//! Every expected number is from NumPy 2.4, by the call in the comment above it.

use super::*;

fn draws<T>(seed: u32, count: usize, mut draw: impl FnMut(&mut RandomState) -> T) -> Vec<T> {
    let mut random = RandomState::new(seed);
    (0..count).map(|_| draw(&mut random)).collect()
}

/// The last digit may differ between C libraries.
fn assert_close(ours: &[f64], numpy: &[f64]) {
    assert_eq!(ours.len(), numpy.len());
    for (ours, numpy) in ours.iter().zip(numpy) {
        assert!((ours - numpy).abs() <= 1e-15 * numpy.abs(), "{ours:?} is not {numpy:?}");
    }
}

#[test]
fn words_are_those_of_numpy() {
    // RandomState(42).randint(0, 2**32, size=4, dtype=numpy.uint32)
    assert_eq!(draws(42, 4, RandomState::bits), [1_608_637_542, 3_421_126_067, 4_083_286_876, 787_846_414]);
    // RandomState(5489).randint(0, 2**32, size=10000, dtype=numpy.uint32)[[0, 623, 624, 9999]]
    let all = draws(5489, 10_000, RandomState::bits);
    let some = [0, 623, 624, 9999].map(|i: usize| all[i]);
    assert_eq!(some, [3_499_211_612, 4_020_325_887, 4_178_893_912, 4_123_659_995]);
}

#[test]
fn uniform_numbers_are_those_of_numpy() {
    // RandomState(0).random_sample(3)
    let expected = [0.5488135039273248, 0.7151893663724195, 0.6027633760716439];
    assert_eq!(draws(0, 3, RandomState::uniform), expected);
    // RandomState(4294967295).random_sample(2)
    assert_eq!(draws(u32::MAX, 2, RandomState::uniform), [0.0976320289940138, 0.9123828453026218]);
}

#[test]
fn permutations_are_those_of_numpy() {
    // RandomState(42).permutation(10)
    assert_eq!(RandomState::new(42).permutation(10), [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]);
    // RandomState(7).permutation(1)
    assert_eq!(RandomState::new(7).permutation(1), [0]);
    assert_eq!(RandomState::new(7).permutation(0), [0; 0]);
    // ",".join(map(str, RandomState(1).permutation(100000))), its SHA-256
    let text = RandomState::new(1).permutation(100_000).iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let sha256: String =
        <sha2::Sha256 as sha2::Digest>::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sha256, "1fdb1b0348d3a55b445ccd3d152bb39770c8fa91d79f368c88b744259d0cbd12");
}

#[test]
fn choices_are_those_of_numpy() {
    // r = RandomState(3); r.choice(6, 12); r.choice(1, 3); r.choice(4, 2)
    let mut random = RandomState::new(3);
    assert_eq!(random.choice(6, 12), [2, 0, 1, 3, 0, 0, 0, 5, 5, 3, 2, 3]);
    assert_eq!(random.choice(1, 3), [0, 0, 0]);
    assert_eq!(random.choice(4, 2), [1, 1]);
}

#[test]
fn exponential_and_normal_numbers_are_those_of_numpy() {
    // RandomState(12).standard_exponential(2)
    assert_close(&draws(12, 2, RandomState::exponential), &[0.16742842298589986, 1.3472648066801365]);
    // r = RandomState(9); [r.standard_normal() for _ in range(5)]
    let expected =
        [0.0011085547122109732, -0.2895440692501988, -1.1160663030644142, -0.012882756745794295, -0.3783614642079181];
    assert_close(&draws(9, 5, RandomState::gauss), &expected);
}

#[test]
fn gamma_numbers_are_those_of_numpy() {
    // r = RandomState(42); [r.standard_gamma(shape) for _ in range(4)]
    for (shape, expected) in [
        (1.0, [0.4692680899768591, 3.010121430917521, 1.3167456935454493, 0.9129425537759532]),
        (0.1, [5.432296168160873e-05, 0.04416465755011473, 8.546039407159353e-09, 4.370550766605061e-13]),
        (0.5, [0.14028030062619642, 0.6590180328421851, 0.024341816165506288, 0.0033737060025058087]),
        (2.5, [2.983135365424813, 1.9694529574820125, 1.8399551367455784, 1.8399768082363774]),
        (1e6, [1000496.4629830814, 999861.4087607806, 999765.5316064279, 999765.5480216364]),
    ] {
        assert_close(&draws(42, 4, |random| random.gamma(shape)), &expected);
    }
}

#[test]
fn dirichlet_proportions_and_later_draws_are_those_of_numpy() {
    // r = RandomState(42); r.dirichlet([1.0] * 6); r.choice(6, 4)
    let mut random = RandomState::new(42);
    let expected = [
        0.07758678851061197,
        0.497680664507521,
        0.21770512811217946,
        0.15094203581080023,
        0.028045054057161657,
        0.028040329001725567,
    ];
    assert_close(&random.dirichlet(1.0, 6).unwrap(), &expected);
    assert_eq!(random.choice(6, 4), [2, 2, 4, 3]);
    // r = RandomState(42); r.dirichlet([0.1] * 4); r.choice(4, 4)
    let mut random = RandomState::new(42);
    let expected = [0.001228498498914588, 0.9987713082249241, 1.9326627743337112e-07, 9.883877627427097e-12];
    assert_close(&random.dirichlet(0.1, 4).unwrap(), &expected);
    assert_eq!(random.choice(4, 4), [3, 3, 3, 2]);
    // r = RandomState(42); r.dirichlet([3.0] * 3); r.choice(3, 4)
    let mut random = RandomState::new(42);
    assert_close(&random.dirichlet(3.0, 3).unwrap(), &[0.4286204051644106, 0.29440663526901667, 0.27697295956657264]);
    assert_eq!(random.choice(3, 4), [0, 2, 1, 0]);
    // RandomState(42).dirichlet([1e-6] * 3) is [nan, nan, nan]
    assert_eq!(RandomState::new(42).dirichlet(1e-6, 3), None);
}
