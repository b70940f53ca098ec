//! The interface as it lies in memory, in words: what a release must never change.

use std::fmt::Write as _;

use abi_stable::StableAbi;
use abi_stable::std_types::utypeid::UTypeId;
use abi_stable::type_layout::TypeLayout;

use super::root::PluginV1_Ref;

/// The types that interface 1 reaches, each with a number by the order in which they are met.
struct Types(Vec<(UTypeId, &'static TypeLayout)>);

impl Types {
    /// A type's name and number: names alone leave generic arguments out.
    fn name(&mut self, layout: &'static TypeLayout) -> String {
        let id = layout.get_utypeid();
        let number = self.0.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            self.0.push((id, layout));
            self.0.len() - 1
        });
        format!("{}#{number}", layout.full_type())
    }

    /// A type with its size, alignment and fields; of functions their parameters and results.
    fn describe(&mut self, layout: &'static TypeLayout, text: &mut String) {
        let name = self.name(layout);
        let _ = writeln!(text, "{name}: {} bytes, aligned to {}", layout.size(), layout.alignment());
        let fields = layout.get_fields().into_iter().flat_map(|fields| fields.to_vec());
        for field in fields.chain(layout.phantom_fields().to_vec()) {
            let functions: Vec<_> = field.function_range().iter().collect();
            if functions.is_empty() {
                let _ = writeln!(text, "    {}: {}", field.name(), self.name(field.layout()));
            }
            for function in functions {
                let parameters: Vec<String> = function.param_type_layouts.iter().map(|l| self.name(l())).collect();
                let result = function.return_type_layout().map_or_else(|| "()".to_owned(), |l| self.name(l()));
                let _ = writeln!(text, "    {}: fn({}) -> {result}", field.name(), parameters.join(", "));
            }
        }
    }
}

fn describe() -> String {
    let (mut types, mut text, mut next) = (Types(Vec::new()), String::new(), 0);
    types.name(PluginV1_Ref::LAYOUT);
    while let Some((_, layout)) = types.0.get(next).copied() {
        types.describe(layout, &mut text);
        next += 1;
    }
    text
}

#[test]
#[cfg_attr(not(target_pointer_width = "64"), ignore = "recorded with pointers of 64 bits")]
fn interface_1_lies_in_memory_as_it_was_recorded() {
    let recorded = include_str!("../../docs/abi-v1.txt");
    let now = describe();
    if std::env::var_os("FEDPLUG_RECORD_ABI").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/abi-v1.txt"), &now).unwrap();
        return;
    }
    let changed = recorded.lines().zip(now.lines()).find(|(then, now)| then != now);
    assert!(
        recorded == now,
        "the interface is not what was recorded: {changed:?}. A released interface never changes: plugins that were built with it \
         would no longer load. See docs/abi.md; a change goes beside it, as interface 2."
    );
}
