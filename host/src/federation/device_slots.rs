//! How many clients compute on one device at the same time.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The places of each device other than the CPU. A client takes one while it computes.
#[derive(Debug, Default)]
pub(crate) struct DeviceSlots {
    /// The device of each client; none for a client that needs no place.
    devices: Vec<Option<String>>,
    free: Mutex<BTreeMap<String, usize>>,
    returned: Condvar,
}

/// A client's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    slots: &'a DeviceSlots,
    device: &'a str,
}

impl DeviceSlots {
    /// For clients on these devices, with this many places on each but the CPU.
    pub(crate) fn new(devices: &[String], places: usize) -> Self {
        let devices: Vec<_> = devices.iter().map(|device| (device != "cpu").then(|| device.clone())).collect();
        let free = devices.iter().flatten().map(|device| (device.clone(), places.max(1))).collect();
        Self { devices, free: Mutex::new(free), returned: Condvar::new() }
    }

    /// Waits for a place on the client's device; none if it needs none.
    pub(crate) fn take(&self, client: usize) -> Option<Slot<'_>> {
        let device = self.devices.get(client)?.as_deref()?;
        let full = |free: &mut BTreeMap<String, usize>| free.get(device) == Some(&0);
        let mut free = self.returned.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = free.get_mut(device) {
            *places -= 1;
        }
        Some(Slot { slots: self, device })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(places) = self.slots.lock().get_mut(self.device) {
            *places += 1;
        }
        self.slots.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn a_device_has_no_more_clients_than_places() {
        let devices = ["gpu:0", "gpu:1", "gpu:0", "gpu:1", "gpu:0", "cpu", "cpu", "cpu"].map(str::to_owned);
        for places in [1, 2] {
            let slots = DeviceSlots::new(&devices, places);
            let now: [AtomicUsize; 3] = Default::default();
            let most: [AtomicUsize; 3] = Default::default();
            std::thread::scope(|scope| {
                for (client, device) in devices.iter().enumerate() {
                    let (slots, now, most) = (&slots, &now, &most);
                    scope.spawn(move || {
                        let slot = slots.take(client);
                        assert_eq!(slot.is_none(), device == "cpu");
                        let number = ["gpu:0", "gpu:1", "cpu"].iter().position(|name| name == device).unwrap();
                        most[number].fetch_max(now[number].fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(20));
                        now[number].fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
            assert!(most[..2].iter().all(|most| (1..=places).contains(&most.load(Ordering::SeqCst))), "{most:?}");
        }
        // Clients at sites have devices of their own.
        assert!(DeviceSlots::default().take(0).is_none());
    }
}
