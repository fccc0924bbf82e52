/* Another wall clock for one process: preloaded into a proxy by the chaos harness (world.rs), which compiles it.
 *
 * Adds as many seconds to the wall clock as stand in the file that CHAOS_CLOCK names (a signed 64-bit number in this
 * machine's byte order), from the moment they stand there. Monotonic and boot time stay as they are, as when the clock of a
 * machine is set. gettimeofday and timespec_get stay too: librdkafka makes of them the absolute deadlines that the C
 * library waits for by the real clock (cnd_timedwait). libfaketime moves them, and then librdkafka's threads spin. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
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

time_t time(time_t *now) {
  struct timespec exact;
  time_t seconds = clock_gettime(CLOCK_REALTIME, &exact) == 0 ? exact.tv_sec : (time_t)-1;
  if (now) *now = seconds;
  return seconds;
}
