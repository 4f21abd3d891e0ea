# Outlier ejection: peers whose responses stand out are not used for a time.
#
# Rules: what a response tells is counted in atomic words of the peer's record. Whether that makes it an outlier is
# decided at once for failures in a row, and in sweeps for rates and times, of which one worker does each. Ejections
# change under the group's lock, and `enforce` alone says which are in force: none while too few peers are available.
# Workers of a past configuration eject nobody.

from libc.math cimport sqrt

cdef enum:
    LATENCY_FLOOR_US = 10_000   # what is slower than others by less than that is no outlier


cdef class Outliers:
    """The outliers of one upstream. Times in ms; 0 turns off what a limit belongs to."""

    cdef readonly Peers peers
    cdef readonly uint64_t consecutive
    cdef readonly int64_t interval
    cdef readonly int64_t base_time
    cdef readonly int64_t max_time
    cdef readonly int max_percent
    cdef readonly double stdev_factor
    cdef readonly int minimum_hosts
    cdef readonly uint64_t volume
    cdef readonly double latency_factor
    cdef readonly int panic
    cdef uint64_t generation

    def __cinit__(self, Peers peers, consecutive=5, interval=10_000, base_time=30_000, max_time=300_000, max_percent=10,
                  stdev_factor=1.9, minimum_hosts=5, volume=100, latency_factor=3.0, panic=50):
        self.peers = peers
        self.consecutive = consecutive
        self.interval = interval
        self.base_time = base_time
        self.max_time = max_time
        self.max_percent = max_percent
        self.stdev_factor = stdev_factor
        self.minimum_hosts = minimum_hosts
        self.volume = volume
        self.latency_factor = latency_factor
        self.panic = panic
        self.generation = load(&header_at(peers.base).generation)

    def note(self, int i, bint failed, uint64_t us=0, int64_t now=-1) -> bool:
        """A try on peer `i` has ended, badly or with a response that took `us`; whether the peer is ejected for it."""
        cdef Cold *cold
        self.peers.check_index(i)
        cold = self.peers.cold(i)
        add(&cold.window_total, 1)
        if not failed:
            add(&cold.window_good, 1)
            add(&cold.window_us, us)
            if load(&cold.consecutive):
                store(&cold.consecutive, 0)
            return False
        if add(&cold.consecutive, 1) < self.consecutive or not self.consecutive:
            return False
        return bool(self.eject([i], clock_ms() if now < 0 else now))

    def sweep(self, int64_t now=-1) -> tuple[list[tuple[int, str]], list[int]]:
        """Once in an interval, for all workers together: who comes back, and who stands out.

        Returns those that it has ejected, each with the reason, and those whose time was over.
        """
        cdef int64_t swept = load_time(&self.peers.group.swept)
        if now < 0:
            now = clock_ms()
        # Timers are not exact: an eighth too early is in time.
        if not self.current() or now - swept < self.interval - self.interval // 8:
            return [], []
        if not swap_time(&self.peers.group.swept, swept, now):
            return [], []
        rates, times = self.windows()
        found = {}
        for i in self.slow(times):
            found[i] = "latency"
        for i in self.failing(rates):
            found[i] = "success rate"
        back = self.restore(now)
        return [(i, found[i]) for i in self.eject(list(found), now)], back

    def enforce(self) -> None:
        """Looks anew whether enough peers are available, after one's health has changed."""
        if self.current() and self.peers.lock():
            self.apply()
            self.peers.unlock(True)

    cdef bint current(self) noexcept:
        return load(&header_at(self.peers.base).generation) == self.generation

    cdef tuple windows(self):
        # What the interval that ends has seen, of those with enough responses: the share of good ones, their mean time.
        cdef Cold *cold
        cdef uint64_t total, good, us
        cdef int i
        rates, times = {}, {}
        for i in range(self.peers.count):
            cold = self.peers.cold(i)
            total, good, us = load(&cold.window_total), load(&cold.window_good), load(&cold.window_us)
            add(&cold.window_total, -total)
            add(&cold.window_good, -good)
            add(&cold.window_us, -us)
            if total == 0 or total < self.volume or cold.ejected_until:
                continue
            rates[i] = min(100.0, 100.0 * good / total)
            if good:
                times[i] = us / <double> good
        return rates, times

    cdef list failing(self, dict rates):
        cdef double mean, least
        cdef Py_ssize_t n = len(rates)
        if not self.stdev_factor or n < max(2, self.minimum_hosts):
            return []
        mean = sum(rates.values()) / n
        least = mean - self.stdev_factor * sqrt(sum([(rate - mean) ** 2 for rate in rates.values()]) / n)
        return sorted([i for i in rates if rates[i] < least], key=rates.get)

    cdef list slow(self, dict times):
        cdef Py_ssize_t n = len(times)
        if not self.latency_factor or n < max(2, self.minimum_hosts):
            return []
        ordered = sorted(times.values())
        median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        most = max(median * self.latency_factor, median + LATENCY_FLOOR_US)
        return sorted([i for i in times if times[i] > most], key=times.get, reverse=True)

    cdef list restore(self, int64_t now):
        # Those whose time is over; who behaved well for an interval is ejected for less the next time.
        cdef Cold *cold
        cdef int i
        back = []
        if not self.peers.lock():
            return back
        step(armed)
        for i in range(self.peers.count):
            cold = self.peers.cold(i)
            if cold.ejected_until == 0:
                if cold.ejections:
                    cold.ejections -= 1
            elif cold.ejected_until <= now:
                store(&cold.consecutive, 0)
                cold.ejected_until = 0
                step(armed)
                self.peers.back(i, now)
                back.append(i)
        self.apply()
        self.peers.unlock(True)
        return back

    cdef list eject(self, list found, int64_t now):
        # Those of the found that may be ejected: at least one of a group, no more than the set share of it.
        cdef Cold *cold
        cdef int i, total = 0, out = 0
        done = []
        if not found or not self.current() or not self.peers.lock():
            return done
        step(armed)
        for i in range(self.peers.count):
            if load32(&self.peers.hot[i].flags) & DOWN == 0:
                total += 1
                out += self.peers.cold(i).ejected_until != 0
        for i in found:
            cold = self.peers.cold(i)
            if cold.ejected_until or total < 2 or not self.max_percent:
                continue
            if out and (out + 1) * 100 > self.max_percent * total:
                break
            out += 1
            cold.ejections += 1
            cold.ejected += 1
            store(&cold.consecutive, 0)
            step(armed)
            cold.ejected_until = now + max(1, min(self.base_time * <int64_t> cold.ejections, self.max_time))
            done.append(i)
        self.apply()
        self.peers.unlock(True)
        return done

    cdef void apply(self) noexcept:
        cdef Peers peers = self.peers
        cdef uint32_t flags
        cdef int i, total = 0, available = 0
        cdef bint ignored
        for i in range(peers.count):
            flags = load32(&peers.hot[i].flags)
            if flags & DOWN == 0:
                total += 1
                available += flags & AWAY & ~<uint32_t> EJECTED == 0 and peers.cold(i).ejected_until == 0
        ignored = available * 100 < self.panic * total
        for i in range(peers.count):
            step(armed)
            if peers.cold(i).ejected_until and not ignored:
                set_bits(&peers.hot[i].flags, EJECTED)
            else:
                clear_bits(&peers.hot[i].flags, ~<uint32_t> EJECTED)
