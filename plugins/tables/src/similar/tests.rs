use plugin_api::context::Silent;
use proptest::collection::vec;
use proptest::prelude::*;
use test_support::cases;

use super::*;

/// The Levenshtein distance by its definition.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let least = (diagonal + usize::from(a != b)).min(row[j + 1] + 1).min(row[j] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], least);
        }
    }
    row[b.len()]
}

/// The components by their definition: all pairs are compared, and sets are joined by renaming.
fn naive_components(texts: &[&[u8]], identity: f64) -> Vec<usize> {
    let mut sets: Vec<usize> = (0..texts.len()).collect();
    for i in 0..texts.len() {
        for j in 0..i {
            let longer = texts[i].len().max(texts[j].len()) as f64;
            if 1.0 - distance(texts[i], texts[j]) as f64 / longer >= identity - 1e-12 {
                let (from, to) = (sets[i].max(sets[j]), sets[i].min(sets[j]));
                sets.iter_mut().filter(|set| **set == from).for_each(|set| *set = to);
            }
        }
    }
    let mut numbers = sets.clone();
    numbers.sort_unstable();
    numbers.dedup();
    sets.iter().map(|set| numbers.binary_search(set).unwrap()).collect()
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Replace(prop::sample::Index, u8),
}

fn letter() -> impl Strategy<Value = u8> {
    prop::sample::select(b"ACDEFGHIKLMNPQRSTVWY".as_slice())
}

fn edit() -> impl Strategy<Value = Edit> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), letter()).prop_map(|(at, letter)| Edit::Insert(at, letter)),
        index().prop_map(Edit::Remove),
        (index(), letter()).prop_map(|(at, letter)| Edit::Replace(at, letter)),
    ]
}

fn edited(text: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut text = text.to_vec();
    for edit in edits {
        match edit {
            Edit::Insert(at, letter) => text.insert(at.index(text.len() + 1), *letter),
            Edit::Remove(at) if text.len() > 1 => _ = text.remove(at.index(text.len())),
            Edit::Remove(_) => {}
            Edit::Replace(at, letter) => {
                let at = at.index(text.len());
                text[at] = *letter;
            }
        }
    }
    text
}

/// A sequence and some edits of it: up to 250 letters and 40 edits, so that all code paths of the crate are used.
fn near_pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (vec(letter(), 1..250), vec(edit(), 0..40)).prop_map(|(text, edits)| {
        let other = edited(&text, &edits);
        (text, other)
    })
}

/// Families of an ancestor and its variants, whose ancestors are variants of one sequence: all near each other, or far apart.
fn families() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let family = |spread: usize| (vec(edit(), 0..spread), vec(vec(edit(), 0..9), 1..8));
    let families = (1_usize..45).prop_flat_map(move |spread| vec(family(spread), 1..16));
    (vec(letter(), 40..90), families).prop_map(|(parent, families)| {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for (edits, variants) in families {
            let ancestor = edited(&parent, &edits);
            all.extend(variants.iter().map(|edits| edited(&ancestor, edits)));
        }
        all.sort();
        all.dedup();
        all
    })
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn edit_distances_are_exact_and_word_counts_never_rule_out_a_near_pair((a, b) in near_pair()) {
        let exact = distance(&a, &b);
        let comparator = BatchComparator::new(b.iter().copied());
        for limit in [0, 1, 3, exact.saturating_sub(1), exact, exact + 1, 20, 125] {
            prop_assert_eq!(within(&comparator, &a, limit), exact <= limit, "{} and {}", exact, limit);
            if exact <= limit {
                prop_assert!(!Counted::new(&a).counts_differ_by_more_than(2 * WORD * limit, &Counted::new(&b)));
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn components_are_those_of_all_pairs(all in families(), identity in 0.7..0.97_f64, threads in 1_usize..4) {
        let texts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        let found = components(&texts, identity, &Context::new(&Silent).with_threads(threads)).unwrap();
        prop_assert_eq!(found, naive_components(&texts, identity));
    }
}

#[test]
fn families_of_variants_form_several_components() {
    // The property above would hold for a single component as well.
    let text = |family: usize, variant: usize| {
        let mut text: Vec<u8> = (0..90).map(|i| b"ACDEFGHIKLMNPQRSTVWY"[(i * (family + 3) + i / 7) % 20]).collect();
        text[variant % 90] = b'X';
        text
    };
    let all: Vec<Vec<u8>> = (0..300).map(|i| text(i % 6, i / 6)).collect();
    let texts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let found = components(&texts, 0.9, &Context::new(&Silent)).unwrap();
    assert_eq!(found, (0..300).map(|i| i % 6).collect::<Vec<_>>());
}

#[test]
fn empty_sequences_are_compared() {
    let within = |a: &[u8], b: &[u8], limit| within(&BatchComparator::new(a.iter().copied()), b, limit);
    assert!(within(b"", b"", 0) && !within(b"", b"AB", 1) && within(b"AB", b"", 2));
}
