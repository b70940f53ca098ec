//! `.npy` streams, against numpy's.

use proptest::prelude::*;
use test_support::cases;
use test_support::fuzz::{Memory, fuzz};

use super::{python, unbase64};
use crate::assemble::Assembly;
use crate::content::{Array, DType};
use crate::error::Error;
use crate::npy;

fn about(row: &serde_json::Value) -> (DType, Vec<u64>) {
    let dtype = DType::from_name(row["dtype"].as_str().unwrap()).unwrap();
    (dtype, serde_json::from_value(row["shape"].clone()).unwrap())
}

/// Reads a stream that comes in pieces of these lengths, over and over.
fn assemble(stream: &[u8], pieces: &[usize]) -> Result<Array, Error> {
    let mut assembly = Assembly::new(16);
    let (mut rest, mut at) = (stream, 0);
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(pieces[at % pieces.len()].min(rest.len()));
        assembly.append(
            piece,
            |bytes| {
                if bytes > 1 << 20 { Err(Error::protocol("array", "too large")) } else { Ok(()) }
            },
        )?;
        assert_eq!(assembly.read(0..assembly.len()), stream[..assembly.len()]);
        (rest, at) = (left, at + 1);
    }
    assembly.finish()
}

#[test]
fn heads_are_numpys_to_the_byte() {
    let python = python();
    let heads = python["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 96);
    for row in heads {
        let (dtype, shape) = about(row);
        assert_eq!(npy::write(dtype, &shape).unwrap(), unbase64(&row["head"]), "{dtype:?} {shape:?}");
    }
    assert_eq!(npy::write(DType::BF16, &[1]), None);
}

#[test]
fn numpys_streams_are_read_in_each_version_and_order() {
    let python = python();
    let streams = python["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 270);
    for row in streams {
        let (dtype, shape) = about(row);
        let expected = Array::new(dtype, shape, unbase64(&row["data"]).into()).unwrap();
        for pieces in [&[usize::MAX][..], &[1], &[7, 80, 3]] {
            assert_eq!(assemble(&unbase64(&row["stream"]), pieces).unwrap(), expected);
        }
    }
}

#[test]
fn a_stream_that_ends_early_or_late_is_an_error() {
    let mut stream = npy::write(DType::F32, &[3]).unwrap();
    stream.extend([0; 12]);
    assemble(&stream, &[5]).unwrap();
    for length in 0..stream.len() {
        assemble(&stream[..length], &[5]).unwrap_err();
    }
    stream.push(0);
    assemble(&stream, &[5]).unwrap_err();
}

#[test]
fn heads_that_are_not_numpys() {
    let stream = |version: u8, text: &str| {
        let mut stream = b"\x93NUMPY".to_vec();
        stream.extend([version, 0]);
        match version {
            1 => stream.extend((text.len() as u16).to_le_bytes()),
            _ => stream.extend((text.len() as u32).to_le_bytes()),
        }
        stream.extend(text.as_bytes());
        stream
    };
    let good = "{\"shape\":(2,),'descr':'<i2','fortran_order':False}";
    let mut whole = stream(1, good);
    whole.extend([1, 0, 2, 0]);
    assert_eq!(assemble(&whole, &[4]).unwrap().shape(), [2]);
    for (version, text) in [
        (1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)"),
        (1, "{'descr': '<f4', 'fortran_order': False}"),
        (1, "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}"),
        (1, "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}"),
        (1, "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        (1, "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}"),
        (1, "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999)}"),
        (1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1048576,)}"),
        (1, "{'descr': '|f4', 'fortran_order': False, 'shape': ()}"),
        (1, "{'descr': '<c8', 'fortran_order': False, 'shape': ()}"),
        (1, "{'descr': '|O', 'fortran_order': False, 'shape': ()}"),
        (1, "{'descr': '<', 'fortran_order': False, 'shape': ()}"),
        (1, "{'descr': 'ü', 'fortran_order': False, 'shape': ()}"),
        (1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}"),
        (1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)}"),
        (1, "{'descr': '<f4', 'fortran_order': False, 'shape': ()} + 1"),
        (1, ""),
        (1, "{"),
        (4, good),
        (0, good),
    ] {
        let error = assemble(&stream(version, text), &[9]).unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
    }
    // The length of a head is bounded before it is waited for.
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    assert!(assemble(&long, &[100]).unwrap_err().to_string().contains("bytes"));
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn any_head_is_read_or_refused(mut text in "[ -~]{0,80}", version in 0u8..5, cut in 0usize..40) {
        let numpys = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }";
        // Half of them begin as numpy's do.
        if cut % 2 == 0 {
            text = format!("{}{text}", &numpys[..cut.min(numpys.len())]);
        }
        let mut stream = b"\x93NUMPY".to_vec();
        stream.extend([version, 0]);
        stream.extend((text.len() as u16).to_le_bytes());
        if version > 1 {
            stream.extend([0, 0]);
        }
        stream.extend(text.as_bytes());
        let _ = assemble(&stream, &[6]);
    }
}

/// The callback of [`assemble`] allows arrays of 1 MiB, and memory is taken for one before its bytes come.
#[test]
fn any_bytes_are_read_or_refused() {
    fuzz("npy", 500, Memory { base: 3 << 20, per_byte: 10 }, |stream| assemble(stream, &[999]).is_ok());
}
