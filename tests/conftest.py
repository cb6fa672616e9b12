"""What all tests have in common."""

import signal
import threading

# A runner in the background ignores it, and so would all that tests start; some of them send it.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)
