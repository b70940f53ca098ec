//! `fedplug embed`: the vectors that a trained model has for the input's rows, for other programs.
//!
//! The model's extension `embed` computes them. It gets `task`, the task whose inputs the rows are; `columns`, an object
//! with the texts of each input column; and `missing`, the names of the tensors that the model's file lacks. It returns the
//! tensor `vectors`, f32, (rows, size).

use std::fs::File;
use std::io::{BufWriter, Seek as _, SeekFrom, Write};
use std::path::Path;

use plugin_api::{Column, Error, ErrorKind, Message, Table};
use serde_json::{Map, json};

use crate::commands::trained::{Options, Trained, inputs, with_trained};
use crate::error::{CliError, Diagnostic};
use crate::terminal::console::Console;

/// The name of the tensor, in a safetensors file and in the extension's reply.
const VECTORS: &str = "vectors";

/// A file format for a matrix of f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// NumPy's.
    Npy,
    /// Hugging Face's, with the tensor `vectors`.
    Safetensors,
}

impl Format {
    /// That of a file's name.
    ///
    /// # Errors
    /// If its extension is another.
    pub(crate) fn of(path: &Path) -> Result<Self, CliError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => {
                let report = Diagnostic::new(format!("{}: the file's format is not known", path.display()));
                Err(CliError::usage(report.hint("the extension says it: `.npy` or `.safetensors`")))
            }
        }
    }

    /// The header, which has the same length for every shape.
    fn header(self, rows: u64, size: usize) -> Vec<u8> {
        match self {
            // https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0.
            Self::Npy => {
                let fields = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {size}), }}");
                let mut header = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
                header.extend(format!("{fields:<117}\n").into_bytes());
                header
            }
            Self::Safetensors => {
                let tensor =
                    json!({ "dtype": "F32", "shape": [rows, size], "data_offsets": [0, rows * size as u64 * 4] });
                let mut header = 248_u64.to_le_bytes().to_vec();
                header.extend(format!("{:<248}", json!({ VECTORS: tensor }).to_string()).into_bytes());
                header
            }
        }
    }
}

/// Writes the vectors of the input's rows, in their order, with the inputs of the first task that is asked for. Returns the
/// numbers of rows and of a vector's elements.
///
/// # Errors
/// If the run or the input cannot be read, the model gives no vectors, or the output cannot be written.
pub(crate) fn embed(
    options: &Options,
    format: Format,
    console: &Console,
    output: &mut File,
) -> Result<(u64, usize), CliError> {
    with_trained(options, console, |mut trained| {
        let failed = |e: std::io::Error| CliError::run(Diagnostic::new("cannot write the vectors").cause(e));
        let mut writer = BufWriter::new(output);
        let (mut count, mut size) = (0, None);
        loop {
            let table = trained.next_rows()?;
            if size.is_some() && table.rows() == 0 {
                break;
            }
            let vectors = vectors(&mut trained, &inputs(&table)?)?;
            let width = vectors.len().checked_div(table.rows()).unwrap_or(0);
            if size.is_none() {
                // The number of rows is not known yet.
                writer.write_all(&format.header(0, width)).map_err(failed)?;
            }
            let bytes: Vec<u8> = vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
            writer.write_all(&bytes).map_err(failed)?;
            count += table.rows() as u64;
            size = Some(size.unwrap_or(width));
        }
        let size = size.unwrap_or(0);
        writer.seek(SeekFrom::Start(0)).map_err(failed)?;
        writer.write_all(&format.header(count, size)).and_then(|()| writer.flush()).map_err(failed)?;
        Ok((count, size))
    })
}

/// The vectors of some rows, row by row.
fn vectors(trained: &mut Trained<'_>, rows: &Table) -> Result<Vec<f32>, CliError> {
    let request = request(&trained.tasks, rows, &trained.missing).map_err(|error| trained.model_error(error))?;
    let reply = trained.model.extension("embed", &request, &trained.ctx);
    let found = reply.map_err(|error| match error.kind() {
        ErrorKind::Unsupported => {
            trained.model_error(Error::unsupported("this model gives no vectors").because(&error))
        }
        _ => trained.model_error(error),
    })?;
    let checked = || -> plugin_api::Result<Vec<f32>> {
        let tensor = found.params.get(VECTORS).ok_or_else(|| Error::tensor(VECTORS, "is missing from the reply"))?;
        match tensor.shape() {
            [there, _] if *there == rows.rows() && tensor.is_finite() => Ok(tensor.elements::<f32>()?.to_vec()),
            _ => Err(Error::tensor(
                VECTORS,
                format!("{tensor:?} is not a finite vector for each of {} rows", rows.rows()),
            )),
        }
    };
    checked().map_err(|error| trained.model_error(error))
}

fn request(tasks: &[String], rows: &Table, missing: &[String]) -> plugin_api::Result<Message> {
    let mut columns = Map::new();
    for (name, column) in rows.columns() {
        let Column::Text(texts) = column else {
            return Err(Error::unsupported(format!(
                "column `{name}` holds {}, and only texts have vectors",
                column.kind()
            )));
        };
        columns.insert(name.to_owned(), texts.iter().collect::<Vec<_>>().into());
    }
    let values = json!({ "task": tasks.first(), "columns": columns, "missing": missing });
    let values = values.as_object().cloned().unwrap_or_default();
    Ok(Message { values, ..Message::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_one_length_and_their_formats_alignment() {
        for (format, length) in [(Format::Npy, 128), (Format::Safetensors, 256)] {
            for (rows, size) in [(0, 0), (3, 640), (u64::from(u32::MAX), 100_000)] {
                assert_eq!(format.header(rows, size).len(), length, "{format:?} {rows} {size}");
            }
        }
        assert!(Format::Npy.header(3, 2).ends_with(b" \n"));
        assert_eq!(Format::of(Path::new("a/b.npy")).unwrap(), Format::Npy);
        assert!(Format::of(Path::new("a/b.csv")).is_err() && Format::of(Path::new("npy")).is_err());
    }
}
