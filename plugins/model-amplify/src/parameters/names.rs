//! What the name of a parameter tells of its place in the model.

use crate::config::is_of_adapter;

/// Our prefix of the published names of the trunk's parameters.
pub(crate) const TRUNK: &str = "trunk.";

/// Whether a parameter of this name belongs to the trunk.
pub(crate) fn is_of_trunk(name: &str) -> bool {
    name.starts_with(TRUNK)
}

/// Whether a parameter of this name belongs to the base model: to the trunk, and not to an adapter.
pub(crate) fn is_of_base(name: &str) -> bool {
    is_of_trunk(name) && !is_of_adapter(name)
}

/// Whether a parameter of this name belongs to the trunk's decoder, which reads the last block's output.
pub(crate) fn is_of_decoder(name: &str) -> bool {
    ["trunk.layer_norm_2.", "trunk.decoder."].iter().any(|prefix| name.starts_with(prefix))
}

/// The blocks up to that of a parameter, with it: 1 for those of the first block, 0 for the embedding below all of them, and
/// none for decoder and heads, which are above.
pub(crate) fn depth(name: &str) -> Option<usize> {
    let block = name.strip_prefix("trunk.transformer_encoder.").and_then(|rest| rest.split('.').next()?.parse().ok());
    match block {
        Some(block) => Some(usize::saturating_add(block, 1)),
        None => (is_of_trunk(name) && !is_of_decoder(name)).then_some(0),
    }
}

/// The number of the trunk's `blocks` above a parameter: all of them above the embedding, and none above decoder and heads.
pub(crate) fn blocks_above(name: &str, blocks: usize) -> usize {
    depth(name).map_or(0, |depth| blocks.saturating_sub(depth))
}

/// Whether a parameter belongs to the embedding or to one of the first `blocks`, of which there are some.
pub(crate) fn is_below(name: &str, blocks: usize) -> bool {
    blocks > 0 && depth(name).is_some_and(|depth| depth <= blocks)
}
