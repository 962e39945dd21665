"""Training runs that take turns, a step each, in one process: what disturbs one disturbs the others alike.

Steps are timed in seconds of the process's CPU on one thread. On a shared machine wall time and several threads tell
how often the threads wait for a core: every operation then takes as long as the scheduler's slice, large or small.
"""

import threading
import time

import torch


def race(runners):
    """Run each of the runners in a thread of its own, of which one goes on at a time.

    Args:
        runners: Functions by name; each is called with a function that it calls after every step.

    Returns:
        By name what the runner returned, and the CPU seconds of each of its steps but the first, in which things are
        built and warmed up.
    """
    turns = {name: threading.Semaphore(0) for name in runners}
    back, results, times = threading.Semaphore(0), {}, {name: [] for name in runners}
    failed = []

    def run(name):
        turns[name].acquire()
        torch.set_num_threads(1)
        begun = [time.process_time()]

        def tick():
            times[name].append(time.process_time() - begun[0])
            back.release()
            turns[name].acquire()
            begun[0] = time.process_time()

        try:
            results[name] = runners[name](tick)
        except Exception as error:  # noqa: BLE001  # the caller's thread raises it
            failed.append(error)
        finally:
            back.release()

    threads = {name: threading.Thread(target=run, args=[name], daemon=True) for name in runners}
    for thread in threads.values():
        thread.start()
    while any(thread.is_alive() for thread in threads.values()):
        for name, thread in threads.items():
            if thread.is_alive() and name not in results and not failed:
                turns[name].release()
                back.acquire()
        if failed:
            raise failed[0]
        time.sleep(0.01)
    return results, {name: seconds[1:] for name, seconds in times.items()}
