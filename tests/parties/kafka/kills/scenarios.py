"""What is done to members and brokers. Each scenario fails unless records flow when it strikes."""

import random
import time

from .bench import Bench
from .cluster import Broker
from .member import Member

# Time until a process that was killed is started again, as a supervisor does it.
AWAY = 2.0

# The session of a member, in seconds.
SESSION = 10.0

MEMBER_FAULTS = ["kill member", "terminate member", "stop member"]
BROKER_FAULTS = ["kill broker", "stop broker"]


def bound_of_member(bench: Bench) -> int:
    """What docs/kafka.md promises about a process that dies."""
    return 3 * bench.in_flight


def bound_of_broker(bench: Bench) -> int:
    """A broker's end costs members their partitions at worst: what is promised about one that dies, for each, and all
    that is answered in a session without a coordinator, when nothing can be committed."""
    return len(bench.members) * bound_of_member(bench) + int(SESSION * bench.rate)


def kill_members(bench: Bench, kills: int) -> None:
    for number in range(kills):
        member = bench.members[number % len(bench.members)]
        detail = bench.see_work(member)
        with bench.fault("kill", member, bound_of_member(bench), detail):
            member.kill()
            time.sleep(AWAY)
            member.start()


def kill_brokers(bench: Bench, kills: int) -> None:
    """With one broker, nothing can be read or written while it is away; with three, the others take over."""
    brokers = bench.cluster.brokers
    for number in range(kills):
        broker = brokers[number % len(brokers)]
        detail = bench.cluster.role_of(broker)
        for member in bench.members:
            bench.see_work(member)
        with bench.fault("kill", broker, bound_of_broker(bench), detail) as fault:
            broker.kill()
            time.sleep(AWAY)
            broker.start()
            bench.wait(f"port of {broker.name}", broker.is_listening)
            fault.away = time.time() - fault.at


def mixed(bench: Bench, seconds: float, seed: int) -> None:
    """Faults of all kinds, the next one often before the last one is overcome."""
    dice = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # Something has to flow. That a partition still rests is welcome.
        bench.wait("answers", lambda: time.time() - max(bench.ledger.newest.values()) < 1)
        kind = dice.choice([*MEMBER_FAULTS, *BROKER_FAULTS])
        member, broker = dice.choice(bench.members), dice.choice(bench.cluster.brokers)
        pause, gap = dice.uniform(1, 6), dice.uniform(2, 12)
        if kind in BROKER_FAULTS and not bench.cluster.is_whole():
            # With two of three away, nothing is promised to go on. Members have no such rest.
            kind = dice.choice(MEMBER_FAULTS)
        strike(bench, kind, member, broker, pause)
        time.sleep(gap)
    bench.wait("flow at the end", bench.flows, 2)


def strike(bench: Bench, kind: str, member: Member, broker: Broker, pause: float) -> None:
    """One fault. `pause` is how long a process is away or stands still."""
    detail = f"{pause:.1f} s"
    if kind == "kill member":
        with bench.fault("kill", member, bound_of_member(bench), detail, settle=False):
            member.kill()
            time.sleep(pause)
            member.start()
    elif kind == "terminate member":
        with bench.fault("SIGTERM", member, 0, detail, settle=False):
            # With brokers away, the last commit waits for them; --drain-timeout ends that.
            member.terminate(60)
            time.sleep(pause)
            member.start()
    elif kind == "stop member":
        with bench.fault("SIGSTOP", member, 0, detail, settle=False):
            member.stop_for(pause)
    elif kind == "kill broker":
        role = bench.cluster.role_of(broker)
        with bench.fault("kill", broker, bound_of_broker(bench), f"{detail}, {role}", settle=False):
            broker.kill()
            time.sleep(pause)
            broker.start()
    else:
        role = bench.cluster.role_of(broker)
        with bench.fault("SIGSTOP", broker, bound_of_broker(bench), f"{detail}, {role}", settle=False):
            broker.stop_for(pause)
