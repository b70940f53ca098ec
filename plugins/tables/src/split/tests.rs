use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use test_support::cases;

use super::*;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

#[test]
fn a_given_split_keeps_the_order_of_rows() {
    let split = Split::given([false, true, false, false, true]);
    assert_eq!((&split.train[..], &split.test[..], split.site_rows().count()), (&[0, 2, 3][..], &[1, 4][..], 0));
    let sites = Sites { count: 2.try_into().unwrap(), alpha: 1.0 };
    let shared = split.clone().across_sites(Some(sites), Seed::new(1));
    assert_eq!((shared.site_rows().collect::<Vec<_>>().concat(), shared.unassigned()), (split.train, 0));
}

#[test]
fn a_shuffle_depends_on_the_seed_and_the_number_of_rows() {
    let order = |seed| {
        let mut rows: Vec<usize> = (0..50).collect();
        shuffle(&mut rows, Seed::new(seed));
        rows
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    let mut sorted = order(1);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..50).collect::<Vec<_>>());
}

#[test]
fn the_fraction_is_met_in_each_stratum_though_groups_span_strata() {
    // Fifty sequences in two files each, thirty of them and ten others in a third file, and one row in a fourth.
    let sequences = (0..50).chain(0..50).chain(20..60).chain([0]).collect::<Vec<usize>>();
    let strata = [vec![0; 50], vec![1; 50], vec![2; 40], vec![3]].concat();
    let split = Split::random(&sequences, &strata, 0.2, Seed::new(5));
    let tested = |stratum| split.filter(|row| strata[row] == stratum).test.len();
    assert_eq!([tested(0), tested(1), tested(3)], [10, 10, 0]);
    assert!(tested(2).abs_diff(8) <= 1, "{}", tested(2));
    let on = |rows: &[usize]| rows.iter().map(|&row| sequences[row]).collect::<std::collections::BTreeSet<_>>();
    assert!(on(&split.train).is_disjoint(&on(&split.test)));
}

#[test]
fn sites_get_every_training_row_once_for_extreme_sizes_and_alphas() {
    for alpha in [1e-6, 0.001, 0.1, 1.0, 100.0, 1e6] {
        for (seed, rows, count) in [(1, 0, 1), (2, 1, 6), (3, 5, 100), (4, 1000, 6), (5, 1000, 999), (6, 137, 7)] {
            for test_fraction in [0.001, 0.2, 0.999] {
                let sites = Sites { count: count.try_into().unwrap(), alpha };
                let groups: Vec<usize> = (0..rows).map(|row| row / 3).collect();
                let split = Split::random(&groups, &vec![0; rows], test_fraction, Seed::new(seed));
                let split = split.across_sites(Some(sites), Seed::new(seed));
                assert_eq!((split.site_sizes.len(), split.unassigned(), split.site_rows().count()), (count, 0, count));
                let parts = split.site_rows().collect::<Vec<_>>().concat();
                assert_eq!(parts, split.train);
                let mut all = [parts, split.test].concat();
                all.sort_unstable();
                assert_eq!(all, (0..rows).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn filtered_rows_keep_their_side_and_site() {
    let sites = Sites { count: 3.try_into().unwrap(), alpha: 1.0 };
    let all: Vec<usize> = (0..60).collect();
    let split = Split::random(&all, &[0; 60], 0.2, Seed::new(1)).across_sites(Some(sites), Seed::new(1));
    let even = split.filter(|row| row % 2 == 0);
    for (part, whole) in even.site_rows().zip(split.site_rows()) {
        assert_eq!(part, whole.iter().copied().filter(|row| row % 2 == 0).collect::<Vec<_>>());
    }
    assert_eq!(even.train.len() + even.test.len(), 30);
}

#[test]
fn alpha_controls_how_equal_the_shares_are() {
    let largest = |alpha| {
        let mean =
            (0..200).map(|seed| proportions(4, alpha, &mut rng(seed)).into_iter().fold(0.0, f64::max)).sum::<f64>();
        mean / 200.0
    };
    // The largest of four shares: all, then (1 + 1/2 + 1/3 + 1/4) / 4 for uniform cuts, then a quarter.
    assert!(largest(0.001) > 0.98);
    assert!((largest(1.0) - 25.0 / 48.0).abs() < 0.03, "{}", largest(1.0));
    assert!((largest(1e6) - 0.25).abs() < 0.001);
}

#[test]
fn remainders_go_to_the_largest() {
    assert_eq!(lengths(10, &[0.25, 0.25, 0.5]), [3, 2, 5]);
    assert_eq!(lengths(7, &[0.5, 0.3, 0.2]), [4, 2, 1]);
    assert_eq!(lengths(3, &[1.0, 0.0]), [3, 0]);
}

/// The group and the stratum of each row; groups span strata.
fn rows() -> impl Strategy<Value = Vec<(usize, usize)>> {
    (1_usize..40, 1_usize..5)
        .prop_flat_map(|(groups, strata)| vec((0..groups, 0..strata), 0..120))
        .prop_map(|rows| rows.into_iter().collect())
}

/// The distinct numbers of these rows.
fn distinct(rows: &[usize], numbers: &[usize]) -> BTreeSet<usize> {
    rows.iter().map(|&row| numbers[row]).collect()
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn random_splits_use_every_row_once_and_divide_no_group(
        rows in rows(), fraction in 0.001..0.999_f64, seed: u64, count in 1_usize..12, log_alpha in -6.0..6.0_f64,
    ) {
        let (groups, strata): (Vec<usize>, Vec<usize>) = rows.into_iter().unzip();
        let sites = Sites { count: count.try_into().unwrap(), alpha: 10.0_f64.powf(log_alpha) };
        let random = Split::random(&groups, &strata, fraction, Seed::new(seed));
        let split = random.clone().across_sites(Some(sites), Seed::new(seed));
        prop_assert_eq!((&split.train, &split.test), (&random.train, &random.test));
        let mut all = [&split.train[..], &split.test].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..groups.len()).collect::<Vec<_>>());
        prop_assert!(distinct(&split.train, &groups).is_disjoint(&distinct(&split.test, &groups)));
        prop_assert_eq!((split.site_rows().count(), split.unassigned()), (count, 0));
        prop_assert_eq!(split.site_rows().collect::<Vec<_>>().concat(), &split.train[..]);
        // Every stratum keeps training rows.
        prop_assert_eq!(distinct(&split.train, &strata), strata.iter().copied().collect::<BTreeSet<_>>());
    }

    #[test]
    fn the_fraction_is_met_to_less_than_the_largest_group(
        groups in vec(0_usize..30, 2..150), fraction in 0.05..0.95_f64, seed: u64,
    ) {
        let split = Split::random(&groups, &vec![0; groups.len()], fraction, Seed::new(seed));
        let size = |group: usize| groups.iter().filter(|other| **other == group).count();
        let largest = groups.iter().map(|&group| size(group)).max().unwrap();
        if largest < groups.len() {
            let wanted = ((fraction * groups.len() as f64).round() as usize).clamp(1, groups.len() - 1);
            prop_assert!(!split.test.is_empty() && !split.train.is_empty());
            prop_assert!(split.test.len().abs_diff(wanted) < largest);
        } else {
            prop_assert!(split.test.is_empty());
        }
    }

    #[test]
    fn the_names_of_groups_do_not_matter(groups in vec(0_usize..30, 0..100), seed: u64, offset in 1_usize..30) {
        // Groups with other numbers, as in files that are read in another order.
        let renamed: Vec<usize> = groups.iter().map(|group| (group + offset) % 30).collect();
        let strata = vec![0; groups.len()];
        let split = |groups: &[usize]| Split::random(groups, &strata, 0.3, Seed::new(seed));
        prop_assert_eq!(split(&groups), split(&renamed));
    }

    #[test]
    fn filtered_splits_partition_the_whole(rows in rows(), seed: u64, parts in 1_usize..4) {
        let (groups, strata): (Vec<usize>, Vec<usize>) = rows.into_iter().unzip();
        let sites = Sites { count: 3.try_into().unwrap(), alpha: 1.0 };
        let whole = Split::random(&groups, &strata, 0.3, Seed::new(seed)).across_sites(Some(sites), Seed::new(seed));
        for (site, rows) in whole.site_rows().enumerate() {
            let mut of_parts: Vec<usize> = (0..parts)
                .flat_map(|part| {
                    let split = whole.filter(|row| row % parts == part);
                    split.site_rows().nth(site).unwrap().to_vec()
                })
                .collect();
            of_parts.sort_unstable();
            let mut rows = rows.to_vec();
            rows.sort_unstable();
            prop_assert_eq!(of_parts, rows);
        }
    }
}
