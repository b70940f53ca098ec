//! The context across the boundary: the services that the host lends to every call.

use fedplug_abi::{HostRef, ROption, RStr, RString, TD_Opaque, WireContext, WireHost, WireHost_TO, WireMessage, Wired};
use serde_json::Value;

use super::wire::{export_message, import_message};
use super::{guard, logger};
use crate::context::Host;
use crate::{Context, Level, Message, Result, Seed};

/// The exporting side: a host behind the wire trait.
pub(crate) struct Exported<'a>(&'a dyn Host);

impl WireHost for Exported<'_> {
    fn enabled(&self, code: u8) -> bool {
        guard::quietly(|| self.0.enabled(level(code)))
    }
    fn log(&self, code: u8, line: RStr<'_>) {
        guard::quietly(|| self.0.log(level(code), line.as_str()));
    }
    fn scalar(&self, tag: RStr<'_>, step: u64, value: f64) {
        guard::quietly(|| self.0.scalar(tag.as_str(), step, value));
    }
    fn progress(&self, done: u64, total: u64) {
        guard::quietly(|| self.0.progress(done, total));
    }
    fn note(&self, key: RStr<'_>, text: RStr<'_>) {
        guard::quietly(|| self.0.note(key.as_str(), text.as_str()));
    }
    fn property(&self, key: RStr<'_>) -> ROption<RString> {
        guard::quietly(|| self.0.property(key.as_str())).map(|value| value.to_string().into()).into()
    }
    fn cancelled(&self) -> bool {
        guard::quietly(|| self.0.cancelled())
    }
    fn extension(&self, name: RStr<'_>, input: WireMessage) -> Wired<WireMessage> {
        guard::answer("extension", || Ok(export_message(&self.0.extension(name.as_str(), &import_message(input)?)?)))
    }
}

/// The importing side: the wire trait as a host.
struct Imported<'r, 'h>(&'r HostRef<'h>);

impl Host for Imported<'_, '_> {
    fn enabled(&self, level: Level) -> bool {
        self.0.enabled(level as u8)
    }
    fn log(&self, level: Level, line: &str) {
        self.0.log(level as u8, line.into());
    }
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.0.scalar(tag.into(), step, value);
    }
    fn progress(&self, done: u64, total: u64) {
        self.0.progress(done, total);
    }
    fn note(&self, key: &str, text: &str) {
        self.0.note(key.into(), text.into());
    }
    fn property(&self, key: &str) -> Option<Value> {
        let json = self.0.property(key.into()).into_option()?;
        serde_json::from_str(&json).ok()
    }
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
    fn extension(&self, name: &str, input: &Message) -> Result<Message> {
        import_message(self.0.extension(name.into(), export_message(input)).into_result()?)
    }
}

/// Unknown levels come from later interfaces. They are treated as the finest known level.
fn level(code: u8) -> Level {
    match code {
        0 | 1 => Level::Error,
        2 => Level::Warn,
        3 => Level::Info,
        4 => Level::Debug,
        _ => Level::Trace,
    }
}

/// Calls `call` with the context in its wire form.
pub(crate) fn lend<R>(ctx: &Context<'_>, call: impl FnOnce(&WireContext<'_>) -> R) -> R {
    let exported = Exported(ctx.host());
    call(&WireContext {
        host: WireHost_TO::from_ptr(&exported, TD_Opaque),
        client: ctx.client().map(RStr::from).into(),
        round: ctx.round().into(),
        device: ctx.device().into(),
        threads: ctx.threads() as u64,
        seed: ctx.experiment_seed().value(),
    })
}

/// Calls `call` with a context built from its wire form.
pub(crate) fn borrow<R>(wire: &WireContext<'_>, call: impl FnOnce(&Context<'_>) -> R) -> R {
    let host = Imported(&wire.host);
    let mut ctx = Context::new(&host)
        .with_device(wire.device.as_str())
        .with_threads(wire.threads as usize)
        .with_seed(Seed::new(wire.seed));
    if let ROption::RSome(client) = wire.client {
        ctx = ctx.with_client(client.as_str());
    }
    if let ROption::RSome(round) = wire.round {
        ctx = ctx.with_round(round);
    }
    logger::within(&ctx, || call(&ctx))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;
    use crate::context::Silent;

    struct Knowing;

    impl Host for Knowing {
        fn enabled(&self, _: Level) -> bool {
            false
        }
        fn log(&self, _: Level, _: &str) {}
        fn scalar(&self, _: &str, _: u64, _: f64) {}
        fn progress(&self, _: u64, _: u64) {}
        fn property(&self, key: &str) -> Option<Value> {
            (key == "sampling").then(|| serde_json::json!({ "poisson": 0.1 }))
        }
        fn cancelled(&self) -> bool {
            false
        }
        fn extension(&self, name: &str, input: &Message) -> Result<Message> {
            match name {
                "echo" => Ok(input.clone()),
                "panic" => panic!("lost"),
                _ => Err(crate::context::unknown_extension(name)),
            }
        }
    }

    #[test]
    fn a_host_is_asked_for_what_the_interface_does_not_name() {
        let input: Message =
            [("w", crate::Tensor::from_slice(&[1], &[2.0_f32]).unwrap())].into_iter().collect::<crate::Params>().into();
        lend(&Context::new(&Knowing), |wire| {
            borrow(wire, |ctx| {
                let output = ctx.extension("echo", &input).unwrap();
                assert!(output.params.get("w").unwrap().buffer().is_same(input.params.get("w").unwrap().buffer()));
                assert_eq!(*ctx.extension("panic", &input).unwrap_err().kind(), crate::ErrorKind::Panic);
                assert_eq!(*ctx.extension("x", &input).unwrap_err().kind(), crate::ErrorKind::Unsupported);
            });
        });
        // A host without extensions, across the boundary and directly.
        lend(&Context::new(&Silent), |wire| {
            borrow(wire, |ctx| {
                for ctx in [ctx, &Context::new(&Silent)] {
                    let error = ctx.extension("echo", &input).unwrap_err();
                    assert_eq!(*error.kind(), crate::ErrorKind::Unsupported);
                    assert_eq!(error.to_string(), "the host does not know the extension `echo`");
                }
            });
        });
    }

    #[test]
    fn properties_cross_with_all_their_digits_and_unknown_ones_are_none() {
        lend(&Context::new(&Knowing), |wire| {
            borrow(wire, |ctx| {
                assert_eq!(ctx.property("sampling").unwrap(), Some(Sampling::Poisson(0.1)));
                assert_eq!(ctx.property::<u64>("something else").unwrap(), None);
                let error = ctx.property::<u64>("sampling").unwrap_err();
                assert_eq!(error.to_string(), "the host's property `sampling` has another type");
            });
        });
        lend(&Context::new(&Silent), |wire| {
            borrow(wire, |ctx| assert_eq!(ctx.property::<u64>("sampling").unwrap(), None));
        });
    }
}
