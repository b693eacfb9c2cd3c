"""Where the scripts of crash tests do their work: in the main thread, another one, or a child."""

WHERE = ["main", "thread", "child"]
CODE = """
def in_thread(work):
    failed = []
    def guarded():
        try:
            work()
        except BaseException as error:
            failed.append(error)
    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]

def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0

RUN = {"main": lambda work: work(), "thread": in_thread, "child": in_child}
"""
