"""What a fleet costs in token requests: 10,000 workers on 100 hosts, for 7 days, against 1,000 tokens an hour.

    python benchmarks/fleet.py [--plot FILE.png]     the plot needs matplotlib

It is a simulation, second by second, without carto-auth itself: how often the package asks is tested elsewhere. All
workers start in the first minute, and each always has a task to run. A token is good for 24 hours. Of each hour's
requests the first 1,000 are answered with a token, the others with a 429 that says when the hour is over.
"""

from __future__ import annotations

import argparse
import random
import time

WORKERS, HOSTS, DAYS, QUOTA = 10_000, 100, 7, 1_000
HOUR, DAY = 3_600, 86_400
END = DAYS * DAY

#: Seconds, on average, that a task takes.
TASK = 1_800

#: Seconds between tries of a process that ends in an error: those of Kubernetes' CrashLoopBackOff.
BACKOFF = (10, 20, 40, 80, 160, 300)

#: Seconds, at most, until a process has started and asks for its token.
START = 10

#: As in carto_auth._token: a token is due 60 s and up to a tenth of its lifetime before its end.
LEEWAY, LEEWAY_SHARE = 60, 0.1


class Quota:
    """The authorization server: it counts, and answers 1,000 requests an hour with a token."""

    def __init__(self):
        self.asked = [0] * (END // HOUR + 1)

    def grants(self, now):
        self.asked[now // HOUR] += 1
        return self.asked[now // HOUR] <= QUOTA


def per_process(chance):
    """Nothing is kept: each task is a process that asks; one that is refused fails and is started again."""
    quota, agenda = Quota(), [[] for _ in range(END + 1)]
    tries, since, lost, longest = [0] * WORKERS, [0] * WORKERS, 0, 0
    for worker in range(WORKERS):
        since[worker] = chance.randrange(60)
        agenda[since[worker]].append(worker)
    draw = chance.random
    for now in range(END):
        for worker in agenda[now]:
            if quota.grants(now):
                waited = now - since[worker]
                lost, longest = lost + waited, max(longest, waited)
                tries[worker], after = 0, 1 + int(chance.expovariate(1 / TASK))
                since[worker] = now + after
            else:  # a process also takes some seconds to start
                after = BACKOFF[tries[worker]] + int(START * draw())
                tries[worker] = min(tries[worker] + 1, len(BACKOFF) - 1)
            if now + after < END:
                agenda[now + after].append(worker)
        agenda[now] = ()
    waiting = [END - since[worker] for worker in range(WORKERS) if tries[worker]]
    return quota, lost + sum(waiting), max(longest, *waiting)


def per_cache(caches):
    """A token is kept, for as many workers as share a cache; it is renewed ahead, and a refusal is remembered."""

    def simulate(chance):
        quota, agenda = Quota(), [[] for _ in range(END + 1)]
        ends, lost, longest = [0] * caches, 0, 0
        for cache in range(caches):
            ends[cache] = chance.randrange(60)  # without a token from its start on
            agenda[ends[cache]].append(cache)
        for now in range(END):
            for cache in agenda[now]:
                if quota.grants(now):
                    without = max(0, now - ends[cache])
                    lost, longest = lost + without * WORKERS // caches, max(longest, without)
                    ends[cache] = now + DAY
                    again = ends[cache] - LEEWAY - int(chance.random() * LEEWAY_SHARE * DAY)
                else:
                    again = (now // HOUR + 1) * HOUR + chance.randrange(10)
                if again < END:
                    agenda[again].append(cache)
        lost += sum(max(0, END - end) for end in ends) * WORKERS // caches
        return quota, lost, max(longest, *(END - end for end in ends))

    return simulate


MODES = {
    "nothing is kept, as with use_cache=False in 0.2.0": per_process,
    "a cache for each worker": per_cache(WORKERS),
    "a file on each host": per_cache(HOSTS),
    "a file on each host, and Redis": per_cache(1),
}


def plot(asked, path):
    from matplotlib import pyplot

    pyplot.figure(figsize=(8, 4.5))
    for name, hours in asked.items():
        pyplot.plot([max(count, 0.5) for count in hours[:-1]], label=name, drawstyle="steps-post")
    pyplot.axhline(QUOTA, color="gray", linestyle=":", label=f"the quota, {QUOTA:,} an hour")
    pyplot.yscale("log")
    pyplot.xlabel("hours since the fleet started")
    pyplot.ylabel("token requests an hour")
    pyplot.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--plot", metavar="FILE.png")
    options = parser.parse_args()
    began, asked = time.perf_counter(), {}
    print(f"{'what is kept':<50}{'requests':>12}{'an hour, at most':>18}{'longest wait':>14}{'worker-hours lost':>19}")
    for name, simulate in MODES.items():
        quota, lost, longest = simulate(random.Random(options.seed))
        asked[name] = quota.asked
        wait = max(0, longest) / HOUR
        print(f"{name:<50}{sum(quota.asked):>12,}{max(quota.asked):>18,}{wait:>12.1f} h{lost / HOUR:>19,.0f}")
    if options.plot:
        plot(asked, options.plot)
    print(f"({time.perf_counter() - began:.0f} s, seed {options.seed})")


if __name__ == "__main__":
    main()
