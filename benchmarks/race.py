"""Training runs that take turns, a step each, in one process: what disturbs one disturbs the others alike."""

import threading
import time


def race(runners):
    """Run each of the runners in a thread of its own, of which one goes on at a time.

    Args:
        runners: Functions by name; each is called with a function that it calls after every step.

    Returns:
        By name what the runner returned, and the seconds of each of its steps but the first, in which things are
        built and warmed up.
    """
    turns = {name: threading.Semaphore(0) for name in runners}
    back, results, times = threading.Semaphore(0), {}, {name: [] for name in runners}
    failed = []

    def run(name):
        turns[name].acquire()
        begun = [time.perf_counter()]

        def tick():
            times[name].append(time.perf_counter() - begun[0])
            back.release()
            turns[name].acquire()
            begun[0] = time.perf_counter()

        try:
            results[name] = runners[name](tick)
        except BaseException as error:  # told by the caller's thread
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
