// What runs in a pod's sandbox container: holds the pod's namespaces and reaps processes whose parents have ended.
// Linked statically, so that its image holds nothing else.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number) {
  (void)number;
  _exit(0);
}

static void reap(int number) {
  (void)number;
  while (waitpid(-1, 0, WNOHANG) > 0) {
  }
}

int main(void) {
  struct sigaction action = {.sa_handler = end};
  if (sigaction(SIGINT, &action, 0) < 0 || sigaction(SIGTERM, &action, 0) < 0) {
    return 1;
  }
  action.sa_handler = reap;
  action.sa_flags = SA_NOCLDSTOP;
  if (sigaction(SIGCHLD, &action, 0) < 0) {
    return 1;
  }
  for (;;) {
    pause();
  }
}
