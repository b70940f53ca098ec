//! Datasets across the boundary: the wire trait, a dataset behind it, and it as a dataset again.

use std::path::{Path, PathBuf};

use abi_stable::sabi_trait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, RStr, RString, RVec};

use super::context::{WireContext, borrow, lend};
use super::guard::Guarded;
use super::wire::*;
use crate::{Context, Dataset, Description, Result, Task};

/// [`Dataset`] as the other side sees it.
#[sabi_trait]
pub trait WireDataset: Send {
    /// As [`Dataset::describe`], answered in JSON.
    fn describe(&mut self, ctx: &WireContext<'_>) -> Wired<RString>;
    /// As [`Dataset::load`].
    fn load(&mut self, client: RStr<'_>, ctx: &WireContext<'_>) -> Wired<RVec<WireTask>>;
    /// As [`Dataset::prepare`].
    #[sabi(last_prefix_field)]
    fn prepare(&mut self, folder: RStr<'_>, ctx: &WireContext<'_>) -> Wired<RVec<RString>>;
}

/// A dataset on its way.
pub type DatasetBox = WireDataset_TO<'static, RBox<()>>;

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
}
