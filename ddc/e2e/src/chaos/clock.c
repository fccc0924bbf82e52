/* Another wall clock for one process: preloaded into a proxy by the chaos harness (world.rs), which compiles it.
 *
 * Adds as many seconds to the wall clock as stand in the file that CHAOS_CLOCK names (a signed 64-bit number in this
 * machine's byte order), from the moment they stand there. Monotonic and boot time stay as they are, as when the clock of a
 * machine is set. timespec_get stays too: librdkafka makes of it the absolute deadlines that the C library waits for by
 * the real clock; libfaketime moves it, and then librdkafka's threads spin. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  const char *path = getenv("CHAOS_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *page = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (page != MAP_FAILED) shift = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (!real) begin(); /* another library's constructor was first */
  int code = real(clock, now);
  if (code == 0 && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *shift;
  return code;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec exact;
  (void)zone;
  int code = clock_gettime(CLOCK_REALTIME, &exact);
  if (code == 0) *now = (struct timeval){.tv_sec = exact.tv_sec, .tv_usec = exact.tv_nsec / 1000};
  return code;
}

time_t time(time_t *now) {
  struct timespec exact;
  time_t seconds = clock_gettime(CLOCK_REALTIME, &exact) == 0 ? exact.tv_sec : (time_t)-1;
  if (now) *now = seconds;
  return seconds;
}
