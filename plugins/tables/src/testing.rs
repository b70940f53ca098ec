//! A host that keeps what it is told.

use std::sync::Mutex;

use plugin_api::Level;
use plugin_api::context::Host;

#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<String>>);

impl Told {
    pub(crate) fn lines(self) -> Vec<String> {
        self.0.into_inner().unwrap()
    }
}

impl Host for Told {
    fn enabled(&self, _: Level) -> bool {
        true
    }
    fn log(&self, _: Level, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
    fn scalar(&self, _: &str, _: u64, _: f64) {}
    fn progress(&self, _: u64, _: u64) {}
    fn note(&self, _: &str, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}
