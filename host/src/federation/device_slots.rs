//! How many clients compute on one device at the same time.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The limit on each device other than the CPU.
#[derive(Debug, Default)]
pub(crate) struct DeviceSlots {
    /// The device of each client; none for a client that needs no place.
    devices: Vec<Option<String>>,
    /// The places of each device.
    places: usize,
}

/// The places of the devices while some clients work. A client takes one after the clients before it: with an order of its own,
/// it could hold the place that an earlier client waits for, and wait for that client's order.
#[derive(Debug)]
pub(crate) struct Turns {
    /// The number of each client's device, and how many clients before it have the same one.
    clients: Vec<Option<(usize, usize)>>,
    places: usize,
    devices: Mutex<Vec<Device>>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default)]
struct Device {
    /// How many clients have taken a place.
    taken: usize,
    /// How many have returned it.
    returned: usize,
}

/// A client's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    turns: &'a Turns,
    device: usize,
}

impl DeviceSlots {
    /// For clients on these devices, with this many places on each but the CPU.
    pub(crate) fn new(devices: &[String], places: usize) -> Self {
        let devices = devices.iter().map(|device| (device != "cpu").then(|| device.clone())).collect();
        Self { devices, places: places.max(1) }
    }

    /// For these clients, which start in this order.
    pub(crate) fn turns(&self, clients: &[usize]) -> Turns {
        let mut numbers: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let clients = clients.iter().map(|&client| {
            let device = self.devices.get(client)?.as_deref()?;
            let next = numbers.len();
            let (number, before) = numbers.entry(device).or_insert((next, 0));
            *before += 1;
            Some((*number, *before - 1))
        });
        let clients = clients.collect();
        let devices = Mutex::new(vec![Device::default(); numbers.len()]);
        Turns { clients, places: self.places, devices, changed: Condvar::new() }
    }
}

impl Turns {
    /// Waits until the client at this position may compute on its device. None if it needs no place.
    pub(crate) fn take(&self, position: usize) -> Option<Slot<'_>> {
        let (device, before) = self.clients[position]?;
        let waits = |devices: &mut Vec<Device>| {
            let Device { taken, returned } = devices[device];
            taken != before || taken - returned == self.places
        };
        let mut devices = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        devices[device].taken += 1;
        drop(devices);
        self.changed.notify_all();
        Some(Slot { turns: self, device })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Device>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.turns.lock()[self.device].returned += 1;
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn a_device_has_no_more_clients_than_places_and_takes_them_in_order() {
        let devices = ["gpu:0", "gpu:1", "gpu:0", "gpu:1", "gpu:0", "cpu", "cpu", "cpu"].map(str::to_owned);
        for places in [1, 2] {
            let slots = DeviceSlots::new(&devices, places);
            // The third client does not work.
            let clients = [0, 1, 3, 4, 5, 6, 7];
            let turns = slots.turns(&clients);
            let now: [AtomicUsize; 3] = Default::default();
            let most: [AtomicUsize; 3] = Default::default();
            let order = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                // The last ones come first.
                for (position, &client) in clients.iter().enumerate().rev() {
                    let (turns, now, most, order, device) = (&turns, &now, &most, &order, &devices[client]);
                    scope.spawn(move || {
                        let slot = turns.take(position);
                        assert_eq!(slot.is_none(), device == "cpu");
                        let number = ["gpu:0", "gpu:1", "cpu"].iter().position(|name| name == device).unwrap();
                        most[number].fetch_max(now[number].fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        order.lock().unwrap().push((number, position));
                        std::thread::sleep(Duration::from_millis(20));
                        now[number].fetch_sub(1, Ordering::SeqCst);
                    });
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            assert!(most[..2].iter().all(|most| (1..=places).contains(&most.load(Ordering::SeqCst))), "{most:?}");
            if places == 1 {
                let order = order.into_inner().unwrap();
                let of =
                    |number: usize| order.iter().filter(|(n, _)| *n == number).map(|(_, p)| *p).collect::<Vec<_>>();
                assert_eq!((of(0), of(1)), (vec![0, 3], vec![1, 2]));
            }
        }
        // Clients at sites have devices of their own.
        assert!(DeviceSlots::default().turns(&[0]).take(0).is_none());
    }
}
