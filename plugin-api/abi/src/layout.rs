//! A textual record of the interface as the loader compares it: everything that must never change.

use std::fmt::Write as _;

use abi_stable::StableAbi;
use abi_stable::std_types::utypeid::UTypeId;
use abi_stable::type_layout::{LifetimeArrayOrSlice, TLData, TLField, Tag, TypeLayout};

use crate::PluginV1_Ref;

/// The types that interface 1 reaches, numbered in the order of discovery.
struct Types(Vec<(UTypeId, &'static TypeLayout)>);

impl Types {
    /// A type's name and number. The name alone omits generic arguments.
    fn name(&mut self, layout: &'static TypeLayout) -> String {
        let id = layout.get_utypeid();
        let number = self.0.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            self.0.push((id, layout));
            self.0.len() - 1
        });
        format!("{}#{number}", layout.full_type())
    }

    /// Describes a type: its package, size, alignment, representation and fields; for functions, also parameters and
    /// results.
    fn describe(&mut self, layout: &'static TypeLayout, text: &mut String) {
        let name = self.name(layout);
        let (package, version) = layout.package_and_version();
        let zero = if layout.is_nonzero() { ", never zero" } else { "" };
        let _ = writeln!(
            text,
            "{name}: {} bytes, aligned to {}{zero}, {:?}, of {package} {}",
            layout.size(),
            layout.alignment(),
            layout.repr_attr(),
            compared(version.version.as_str())
        );
        let tag = layout.tag().to_checkable();
        if tag != Tag::null().to_checkable() {
            let _ = writeln!(text, "    tag {tag}");
        }
        if layout.extra_checks().is_some() {
            let _ = writeln!(text, "    with checks of its own");
        }
        match layout.data() {
            TLData::Struct { fields } | TLData::Union { fields } => fields.iter().for_each(|f| self.field(&f, text)),
            TLData::Enum(variants) => {
                let open = if variants.exhaustiveness.is_exhaustive() { "" } else { ", and others" };
                let _ = writeln!(text, "    values {:?}{open}", variants.discriminants);
                for (variant, fields) in variants.variant_names_iter().zip(variants.field_count.as_slice()) {
                    let _ = writeln!(text, "    {variant}: {fields} fields");
                }
                variants.fields.iter().for_each(|f| self.field(&f, text));
            }
            TLData::PrefixType(prefix) => {
                let conditional = prefix.conditional_prefix_fields.bits();
                let _ = writeln!(
                    text,
                    "    the first {} fields, of them conditional {conditional:b}",
                    prefix.first_suffix_field
                );
                prefix.fields.iter().for_each(|f| self.field(&f, text));
            }
            _ => {}
        }
        layout.phantom_fields().iter().for_each(|f| self.field(&f, text));
    }

    fn field(&mut self, field: &TLField, text: &mut String) {
        let functions: Vec<_> = field.function_range().iter().collect();
        if functions.is_empty() {
            let lifetimes = lifetimes(field.lifetime_indices());
            let _ = writeln!(text, "    {}: {}{lifetimes}", field.name(), self.name(field.layout()));
        }
        for function in functions {
            let parameters: Vec<String> = function.param_type_layouts.iter().map(|l| self.name(l())).collect();
            let result = function.return_type_layout().map_or_else(|| "()".to_owned(), |l| self.name(l()));
            let call = if function.fn_qualifs.is_unsafe() { "unsafe fn" } else { "fn" };
            let lifetimes = lifetimes(function.paramret_lifetime_indices);
            let _ = writeln!(text, "    {}: {call}({}) -> {result}{lifetimes}", field.name(), parameters.join(", "));
        }
    }
}

/// The lifetimes that a field or a function uses.
fn lifetimes(indices: LifetimeArrayOrSlice<'static>) -> String {
    let named: Vec<String> = indices.iter().map(|index| format!("{index:?}")).collect();
    if named.is_empty() { String::new() } else { format!(", lifetimes {}", named.join(" ")) }
}

/// The part of a version that the loader compares: the major version, or the minor version if the major one is 0.
fn compared(version: &str) -> String {
    let count = if version.starts_with("0.") { 2 } else { 1 };
    version.split('.').take(count).collect::<Vec<_>>().join(".")
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
    let recorded = include_str!("../docs/v1.txt");
    let now = describe();
    if std::env::var_os("FEDPLUG_RECORD_ABI").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/v1.txt"), &now).unwrap();
        return;
    }
    let changed = recorded.lines().zip(now.lines()).find(|(then, now)| then != now);
    assert!(
        recorded == now,
        "the interface is not what was recorded: {changed:?}. A released interface never changes: plugins that were \
         built with it would no longer load. See plugin-api's docs/abi.md; a change goes beside it, as interface 2."
    );
}
