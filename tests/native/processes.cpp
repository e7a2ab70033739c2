#include "processes.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "check.h"
#include "shared_array.h"

namespace convext::testing {
namespace {

struct Progress {
  std::atomic<int64_t> piece{-1};  // the last one drawn
  int64_t passed = 0;              // in the pieces that are done
  int64_t failed = 0;
  bool finished = false;
};

void draw_pieces(int process, const Work& work, std::atomic<int64_t>& next, Progress& progress) {
  for (;;) {
    const int64_t piece = next.fetch_add(1);
    if (piece >= work.pieces) return;
    progress.piece = piece;
    const int64_t passed_before = checks_passed();
    const int64_t failed_before = checks_failed();
    work.run(process, piece);
    progress.passed += checks_passed() - passed_before;
    progress.failed += checks_failed() - failed_before;
  }
}

// Ends by exit(): sanitizers have something to say then, and a status of their own.
[[noreturn]] void run_child(int process, const Work& work, std::atomic<int64_t>& next, Progress& progress) {
  draw_pieces(process, work, next, progress);
  progress.finished = true;
  std::exit(0);
}

std::string ending(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    return "was ended by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
  }
  return "ended with status " + std::to_string(WEXITSTATUS(status));
}

void wait_for(pid_t child, int process, const Work& work, const Progress& progress) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno == EINTR) continue;
    std::perror("waitpid");
    return add_checks(0, 1);
  }
  add_checks(progress.passed, progress.failed);
  const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (ended_well && progress.finished) return;
  const int64_t piece = progress.piece;
  const std::string when = progress.finished ? "after its last check"
                           : piece < 0       ? "before its first case"
                                             : "in the midst of: " + work.describe(piece);
  // check() prints only the first failures.
  std::printf("FAIL process %d %s %s\n", process + 1, ending(status).c_str(), when.c_str());
  add_checks(0, 1);
}

}  // namespace

void run_in_processes(int processes, const Work& work) {
  const SharedArray<std::atomic<int64_t>> next(1);
  const SharedArray<Progress> progress(static_cast<size_t>(processes));
  if (processes == 1) return draw_pieces(0, work, next[0], progress[0]);

  std::fflush(stdout);  // or each child would print it again
  std::vector<pid_t> children;
  for (int process = 0; process < processes; ++process) {
    const pid_t child = fork();
    if (child == 0) run_child(process, work, next[0], progress[static_cast<size_t>(process)]);
    if (child < 0) {  // the others do its part
      check(!children.empty(), std::string("fork: ") + std::strerror(errno));
      break;
    }
    children.push_back(child);
  }
  for (size_t k = 0; k < children.size(); ++k) wait_for(children[k], static_cast<int>(k), work, progress[k]);
}

bool parse_jobs(const char* text, int* jobs) {
  *jobs = std::atoi(text);
  return *jobs > 0;
}

}  // namespace convext::testing
