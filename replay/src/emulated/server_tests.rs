use super::*;
use crate::device::Direction;
use crate::emulated::{Fault, RemoteDevice};
use crate::{Clock, Completion, Ticket};
use cotenant_profiles::Device as GpuDescription;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::layout::PoolSpec;
use cotenant_sim::program::Code;
use cotenant_sim::scenario::Setup;

/// A GPU with one kernel that keeps every CU for ten waves of 100 us.
fn gpu() -> (EmulatedDevice, Server) {
    let device = GpuDescription::builtin("h100-sxm").unwrap();
    let kernel = crate::emulated::spin("k", 10 * device.cus(), 100_000, device.cus());
    let costs = device.costs.clone();
    let setup = Setup { device, costs, code: Code::of(vec![kernel]).into(), tenants: vec![] };
    let pools: [PoolSpec; 1] = [setup.whole_gpu()];
    let device =
        EmulatedDevice::for_scenario(&setup, &pools, ContentionModel::None, Clock::start(1.0));
    let server = Server::new(&device).unwrap();
    (device, server)
}

fn client(server: &mut Server) -> (RemoteDevice, Prepared) {
    let mut remote = RemoteDevice::connect(server.connect().unwrap()).unwrap();
    let whole = Partition { index: 0, granted: remote.info().cus };
    let queue = remote.queue(whole, 0).unwrap();
    let kernel = remote.prepare_kernel(queue, 0).unwrap();
    (remote, kernel)
}

fn wait(device: &mut RemoteDevice) -> Vec<Completion> {
    let mut ended = Vec::new();
    device.wait(&mut ended).unwrap();
    ended
}

#[test]
fn two_processes_share_one_gpu() {
    let (mut device, mut server) = gpu();
    let ((mut a, kernel_a), (mut b, kernel_b)) = (client(&mut server), client(&mut server));
    assert_eq!((a.info(), a.clock()), (device.info(), device.clock()));
    // Both are issued at the same instant to come: the one that asked first gets every CU.
    let issued = Nanos(device.clock().now().0 + 20_000_000);
    let launch = |work| Launch { issued, ..Launch::of(work) };
    assert_eq!(a.submit(&launch(kernel_a)).unwrap(), Ticket(0));
    a.doze(std::time::Duration::ZERO);
    while device.next_event() != Some(issued) {
        std::thread::yield_now();
    }
    assert_eq!(b.submit(&launch(kernel_b)).unwrap(), Ticket(0));
    let (a, b) = (wait(&mut a), wait(&mut b));
    assert_eq!((a.len(), b.len()), (1, 1));
    assert_eq!((a[0].at, a[0].duration), (Nanos(issued.0 + 1_000_000), Nanos(1_000_000)));
    // b's blocks begin as a's leave; unless b's order came late, it ends with the second million.
    assert!(b[0].at >= Nanos(issued.0 + 2_000_000), "{b:?}");
    assert!(device.usage().unwrap().busy_cu_ns >= 2_000_000 * 132);
}

#[test]
fn orders_unreported_are_waited_for_and_copies_come_in_order() {
    let (_device, mut server) = gpu();
    let (mut a, kernel) = client(&mut server);
    let queue = Queue(0);
    let copy = a.copy(queue, Direction::In, Bytes(1 << 20), Nanos(0)).unwrap();
    a.submit(&Launch { reported: false, ..Launch::of(kernel) }).unwrap();
    let last = a.launch(kernel).unwrap();
    let ended = wait(&mut a);
    assert_eq!(ended.iter().map(|c| c.ticket).collect::<Vec<_>>(), [copy, last]);
    assert!(ended[1].at.0 - ended[0].at.0 >= 2_000_000, "{ended:?}");
    a.submit(&Launch { reported: false, ..Launch::of(kernel) }).unwrap();
    assert_eq!(wait(&mut a), []);
}

#[test]
fn refusals_keep_their_meaning() {
    let (device, mut server) = gpu();
    let (mut a, _) = client(&mut server);
    let whole = Partition { index: 0, granted: 0 };
    let full = device.info().memory;
    a.allocate(whole, full).unwrap();
    let none = DeviceError::OutOfMemory { need: Bytes(1), free: Bytes(0) };
    let (mut b, _) = client(&mut server);
    assert_eq!(b.allocate(whole, Bytes(1)).unwrap_err(), none);
    // Who goes gives its memory back.
    drop(a);
    while b.allocate(whole, full).is_err() {
        std::thread::yield_now();
    }
    assert!(matches!(b.prepare_kernel(Queue(0), 7), Err(DeviceError::Refused(_))));
}

#[test]
fn a_lost_context_is_told_and_a_server_that_goes_is_noticed() {
    let (mut device, mut server) = gpu();
    device.inject(Some(Fault { launch: 1, spreads: true }));
    let ((mut a, kernel), (mut b, other)) = (client(&mut server), client(&mut server));
    b.launch(other).unwrap();
    b.launch(other).unwrap();
    b.doze(std::time::Duration::ZERO);
    a.launch(kernel).unwrap();
    let lost = |d: &mut RemoteDevice| {
        loop {
            if let Err(e) = d.poll(&mut Vec::new()) {
                return e;
            }
            d.doze(std::time::Duration::from_millis(10));
        }
    };
    let mut both = [lost(&mut a).to_string(), lost(&mut b).to_string()];
    both.sort();
    assert!(both[0].contains("another process under MPS"), "{both:?}");
    assert!(both[1].contains("kernel `k` failed"), "{both:?}");
    assert!(a.launch(kernel).is_err());
    let (mut c, _) = client(&mut server);
    drop(server);
    assert!(matches!(lost(&mut c), DeviceError::Gone(_)));
}
