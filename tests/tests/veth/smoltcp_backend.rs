//! The programs with `--backend smoltcp`: what matters most holds there as well.

use wirestack_tests::runner::{Case, Outcome, require_program, test, veth_test};

use crate::support::on_smoltcp;
use crate::{demo, echo, http};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let curl = |cases| require_program("curl", cases);
    vec![
        veth_test("smoltcp::ten_megabytes_come_back", |wire| {
            on_smoltcp(|| echo::ten_megabytes_come_back(wire))
        }),
        veth_test("smoltcp::small_messages_come_back", |wire| on_smoltcp(|| echo::small_messages(wire))),
        veth_test("smoltcp::a_slow_reader_loses_nothing", |wire| on_smoltcp(|| echo::a_slow_reader(wire))),
        veth_test("smoltcp::datagrams_come_back", |wire| on_smoltcp(|| echo::datagrams_come_back(wire))),
        veth_test("smoltcp::closed_ports_refuse", |wire| on_smoltcp(|| echo::closed_ports_refuse(wire))),
        curl(veth_test("smoltcp::files_arrive_whole", |wire| on_smoltcp(|| http::files_arrive_whole(wire)))),
        curl(veth_test("smoltcp::a_hundred_at_once", |wire| on_smoltcp(|| http::a_hundred_at_once(wire)))),
        veth_test("smoltcp::requests_queue", |wire| on_smoltcp(|| http::requests_queue(wire))),
        veth_test("smoltcp::strangers_are_answered", |wire| on_smoltcp(|| http::strangers(wire))),
        curl(veth_test("smoltcp::one_after_the_other", |wire| {
            on_smoltcp(|| http::one_after_the_other(wire))
        })),
        test("smoltcp::the_demo_prints_figures", the_demo_prints_figures),
    ]
}

fn the_demo_prints_figures() -> Outcome {
    let ended = demo::demo(&["--backend", "smoltcp"])?;
    demo::assert_prints_all(&ended);
    // Which smoltcp does not count.
    assert!(!ended.stdout.contains("sent again"), "{ended}");
    Ok(())
}
