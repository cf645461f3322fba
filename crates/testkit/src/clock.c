/* Preloaded into a program under test: its wall clock is TESTKIT_CLOCK_SHIFT_S seconds ahead. Its timers are not touched. */

#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    const char *shift = getenv("TESTKIT_CLOCK_SHIFT_S");
    if (!failed && shift && clock == CLOCK_REALTIME)
        now->tv_sec += atol(shift);
    return failed;
}
