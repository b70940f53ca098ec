//! Datasets across the boundary: the wire trait, its exporting side and its importing side.

use std::path::{Path, PathBuf};

use fedplug_abi::{
    DatasetBox, RStr, RString, RVec, TD_Opaque, WireContext, WireDataset, WireDataset_TO, WireMessage, WireTable,
    WireTask, Wired,
};

use super::context::{borrow, lend};
use super::guard::Guarded;
use super::wire::*;
use crate::{Context, Dataset, Description, Message, Result, Table, Task};

pub(crate) fn export(dataset: Box<dyn Dataset>) -> DatasetBox {
    WireDataset_TO::from_value(Guarded::new(dataset), TD_Opaque)
}

pub(crate) fn import(wire: DatasetBox) -> Box<dyn Dataset> {
    Box::new(Imported(wire))
}

impl WireDataset for Guarded<dyn Dataset> {
    fn describe(&mut self, ctx: &WireContext<'_>) -> Wired<RString> {
        self.call("describe", |dataset| Ok(to_json(&borrow(ctx, |ctx| dataset.describe(ctx))?)))
    }
    fn load(&mut self, client: RStr<'_>, ctx: &WireContext<'_>) -> Wired<RVec<WireTask>> {
        self.call("load", |dataset| Ok(export_tasks(&borrow(ctx, |ctx| dataset.load(client.as_str(), ctx))?)))
    }
    fn prepare(&mut self, folder: RStr<'_>, ctx: &WireContext<'_>) -> Wired<RVec<RString>> {
        self.call("prepare", |dataset| {
            let files = borrow(ctx, |ctx| dataset.prepare(Path::new(folder.as_str()), ctx))?;
            Ok(export_strings(files.iter().map(|file| text(file)).collect::<Result<Vec<_>>>()?))
        })
    }
    fn open_rows(&mut self, file: RStr<'_>, ctx: &WireContext<'_>) -> Wired<()> {
        self.call("open_rows", |dataset| borrow(ctx, |ctx| dataset.open_rows(Path::new(file.as_str()), ctx)))
    }
    fn next_rows(&mut self, at_most: u64, ctx: &WireContext<'_>) -> Wired<WireTable> {
        self.call("next_rows", |dataset| Ok(export_table(&borrow(ctx, |ctx| dataset.next_rows(at_most, ctx))?)))
    }
    fn extension(&mut self, name: RStr<'_>, input: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage> {
        self.call("extension", |inner| {
            let input = import_message(input)?;
            Ok(export_message(&borrow(ctx, |ctx| inner.extension(name.as_str(), &input, ctx))?))
        })
    }
}

struct Imported(DatasetBox);

impl Dataset for Imported {
    fn describe(&mut self, ctx: &Context<'_>) -> Result<Description> {
        from_json(&lend(ctx, |ctx| self.0.describe(ctx)).into_result()?)
    }
    fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>> {
        import_tasks(lend(ctx, |ctx| self.0.load(client.into(), ctx)).into_result()?)
    }
    fn prepare(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<PathBuf>> {
        let folder = text(folder)?;
        let files = lend(ctx, |ctx| self.0.prepare(folder.into(), ctx)).into_result()?;
        Ok(import_strings(files).into_iter().map(PathBuf::from).collect())
    }
    fn open_rows(&mut self, file: &Path, ctx: &Context<'_>) -> Result<()> {
        let file = text(file)?;
        Ok(lend(ctx, |ctx| self.0.open_rows(file.into(), ctx)).into_result()?)
    }
    fn next_rows(&mut self, at_most: u64, ctx: &Context<'_>) -> Result<Table> {
        import_table(lend(ctx, |ctx| self.0.next_rows(at_most, ctx)).into_result()?)
    }
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let input = export_message(input);
        import_message(lend(ctx, |ctx| self.0.extension(name.into(), input, ctx)).into_result()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Silent;
    use crate::{ClientSpec, ClientTask, Column, Source, TargetKind, TaskSpec};

    struct Small;

    impl Dataset for Small {
        fn describe(&mut self, _: &Context<'_>) -> Result<Description> {
            let task = ClientTask { name: "tm".to_owned(), train: 2, test: 0, validation: 0 };
            let client = ClientSpec { name: "ä".to_owned(), tasks: vec![task] };
            let skipped = vec![("no value".to_owned(), 3)];
            let source = Source { path: "a b.csv".into(), sha256: "00".to_owned(), rows: 2, skipped };
            Ok(Description::new(vec![spec()], vec![client], vec![source]))
        }
        fn load(&mut self, client: &str, _: &Context<'_>) -> Result<Vec<Task>> {
            let train = Table::new()
                .with("x", Column::text([client, "β"]))?
                .with("y", Column::f32(&[1.0, f32::NAN]))?
                .with("n", Column::i64(&[i64::MIN, 7]))?;
            Ok(vec![Task { spec: spec(), test: train.select(&[]), train }])
        }
        fn next_rows(&mut self, at_most: u64, _: &Context<'_>) -> Result<Table> {
            Table::new().with("x", Column::text((0..at_most).map(|row| row.to_string())))
        }
    }

    fn spec() -> TaskSpec {
        TaskSpec { target_kind: TargetKind::Class(vec!["a".to_owned()]), ..TaskSpec::new("tm", ["x"], "y") }
    }

    #[test]
    fn a_dataset_is_the_same_behind_the_boundary() {
        let ctx = Context::new(&Silent);
        let mut there = import(export(Box::new(Small)));
        assert_eq!(there.describe(&ctx).unwrap(), Small.describe(&ctx).unwrap());
        let Task { spec: found, train, test } = there.load("ä", &ctx).unwrap().remove(0);
        assert_eq!((found, test.rows(), test.columns().len()), (spec(), 0, 3));
        assert_eq!(train.text("x").unwrap().iter().collect::<Vec<_>>(), ["ä", "β"]);
        assert!(train.f32("y").unwrap()[1].is_nan());
        assert_eq!(train.i64("n").unwrap(), [i64::MIN, 7]);
        assert_eq!(there.next_rows(3, &ctx).unwrap().text("x").unwrap().get(2), "2");
        assert!(there.open_rows(Path::new("x"), &ctx).is_err());
        let error = there.prepare(Path::new("x"), &ctx).unwrap_err();
        assert_eq!(*error.kind(), crate::ErrorKind::Unsupported);
    }
}
