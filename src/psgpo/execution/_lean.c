/* The zygote's loop in C, optional: what `zygote._run_one` and `_become_child` do behind the fence, in the same order
   and with the same messages.

   It is faster for what it does not touch. `os.fork`, `resource`, `ctypes` and the objects of Python's sockets write to
   memory that a child shares with its zygote, and the kernel copies each such page; here a child goes from fork to its
   program on one page of stack. The hooks that `os.fork` would run are for other threads, and the zygote has none. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROTOCOL 1 /* as in helper.py: changes with the messages below and with the signature of `serve` */
#define CHANNEL 3 /* `zygote.CHILD_FD` */
#define LAST_DESCRIPTOR 127 /* to be closed where close_range is missing: above `zygote.OPEN_FILES` */
#define HEADER 4 /* `channel.HEADER` */
#define MOST 3 /* descriptors of a request: channel, standard input, standard output */
#define MOST_TEXT 96 /* of a frame to the tester */
#define FILTER 2 /* PR_SET_SECCOMP's SECCOMP_MODE_FILTER */
#define FAILED 70 /* exit status of a child that could not be confined */

#ifndef SYS_close_range
#define SYS_close_range 436 /* of every architecture */
#endif

/* The control protocol, see zygote.py: `RUN_REQUEST`, `END_AFTER_EXIT`, `END_REPLY`. */
struct __attribute__((packed)) request {
    unsigned int cpu_seconds;
    unsigned long long memory_bytes;
};
struct __attribute__((packed)) reply {
    int status;
    double cpu_seconds;
    unsigned char overstayed;
};
static const char END_AFTER_EXIT = 'x';

/* What is the same for every child. */
struct setting {
    int control;
    int processes;   /* limit for the user's threads; 0 for none, where the user is not the slot's alone */
    int orphan_dies; /* whether the zygote's end must end the child, for no PID namespace does it */
    int grace;       /* milliseconds of END_AFTER_EXIT */
    struct sock_fprog fence;
};

/* The next request and its descriptors, with their number: 0 when the tester is gone, -1 with an exception set. */
static int receive(int control, struct request *request, int *fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MOST * sizeof(int))];
    } space;
    struct iovec data = {request, sizeof *request};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof space};
    ssize_t size;
    while ((size = recvmsg(control, &message, 0)) < 0) {
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (PyErr_CheckSignals())
            return -1;
    }
    if (size == 0)
        return 0;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (size != sizeof *request || !head || head->cmsg_type != SCM_RIGHTS) {
        PyErr_SetString(PyExc_ValueError, "not a request");
        return -1;
    }
    int count = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(head), count * sizeof(int));
    return count;
}

static int limit(int resource, unsigned long long value)
{
    struct rlimit both = {value, value};
    return setrlimit(resource, &both);
}

/* In the child: limits, descriptors and the fence, or no child at all. */
static void confine(const struct setting *setting, const struct request *request, const int *fds, int count)
{
    int failed = setting->orphan_dies && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    failed |= limit(RLIMIT_AS, request->memory_bytes);
    failed |= limit(RLIMIT_CPU, request->cpu_seconds);
    failed |= setting->processes && limit(RLIMIT_NPROC, setting->processes);
    for (int n = 1; n < count; n++) /* first, for one of them may have the channel's number */
        failed |= dup2(fds[n], n - 1) < 0;
    if (fds[0] == CHANNEL)
        failed |= fcntl(CHANNEL, F_SETFD, FD_CLOEXEC) < 0;
    else
        failed |= dup3(fds[0], CHANNEL, O_CLOEXEC) < 0;
    if (syscall(SYS_close_range, CHANNEL + 1, ~0u, 0) < 0)
        for (int fd = CHANNEL + 1; fd <= LAST_DESCRIPTOR; fd++)
            close(fd);
    failed |= prctl(PR_SET_SECCOMP, FILTER, &setting->fence, 0, 0) != 0;
    if (failed)
        _exit(FAILED);
}

/* In the child: one frame to the tester. */
static void say(const char *text)
{
    char frame[HEADER + MOST_TEXT];
    size_t size = strlen(text);
    for (int n = 0; n < HEADER; n++)
        frame[n] = (char)(size >> 8 * n);
    memcpy(frame + HEADER, text, size);
    if (write(CHANNEL, frame, HEADER + size) != (ssize_t)(HEADER + size))
        _exit(FAILED);
}

/* In the child: say that it is confined, and since when. */
static void greet(void)
{
    char text[MOST_TEXT];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof text, "[\"ready\",%lld.%09ld]", (long long)now.tv_sec, now.tv_nsec);
    say(text);
}

/* In the child: what the tester sends at first, as (complete frames, what was read beyond them); mostly that is all. */
static PyObject *first_frames(void)
{
    static unsigned char buffer[1 << 16];
    ssize_t size;
    while ((size = read(CHANNEL, buffer, sizeof buffer)) < 0 && errno == EINTR)
        ;
    unsigned char *start = buffer, *end = buffer + (size > 0 ? size : 0);
    PyObject *frames = PyList_New(0), *frame = frames;
    while (frame && end - start >= HEADER) {
        size_t length = start[0] | start[1] << 8 | start[2] << 16 | (size_t)start[3] << 24;
        if ((size_t)(end - start - HEADER) < length)
            break;
        frame = PyBytes_FromStringAndSize((char *)start + HEADER, (Py_ssize_t)length);
        if (frame && PyList_Append(frames, frame) < 0)
            frame = NULL;
        start += HEADER + length;
    }
    PyObject *first = frame ? Py_BuildValue("(Oy#)", frames, start, (Py_ssize_t)(end - start)) : NULL;
    if (first)
        return first;
    say("[\"end\",\"MEMORY\",\"the program ran out of memory\",\"MemoryError\"]");
    _exit(0);
}

/* Whether the child ends within the grace; it stays to be waited for. */
static int ends_by_itself(pid_t pid, int grace)
{
    for (int n = 0; n < grace; n++) {
        siginfo_t found = {0};
        if (waitid(P_PID, pid, &found, WEXITED | WNOHANG | WNOWAIT) == 0 && found.si_pid == pid)
            return 1;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return 0;
}

/* In the parent: wait for the tester's order, end the child, report. -1 with an exception set. */
static int finish(const struct setting *setting, pid_t pid)
{
    char order = 0;
    ssize_t told;
    while ((told = recv(setting->control, &order, 1, 0)) < 0 && errno == EINTR)
        if (PyErr_CheckSignals())
            return -1;
    struct reply reply = {0};
    reply.overstayed = told == 1 && order == END_AFTER_EXIT && !ends_by_itself(pid, setting->grace);
    struct rusage used;
    int status = 0;
    pid_t ended;
    kill(pid, SIGKILL);
    while ((ended = wait4(pid, &status, 0, &used)) < 0 && errno == EINTR)
        ;
    reply.status = status;
    reply.cpu_seconds = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
    reply.cpu_seconds += 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    if (ended != pid || (told == 1 && send(setting->control, &reply, sizeof reply, MSG_NOSIGNAL) != sizeof reply)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(serve_doc,
             "serve(control, fence, processes, orphan_dies, grace)\n\n"
             "Answer requests until the tester is gone: None then. In each child, confined and announced, a\n"
             "list of the frames that came first, and the bytes read beyond them.");

static PyObject *serve(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    struct setting setting;
    Py_buffer code;
    if (!PyArg_ParseTuple(arguments, "iy*ipi:serve", &setting.control, &code, &setting.processes, &setting.orphan_dies,
                          &setting.grace))
        return NULL;
    setting.fence.len = (unsigned short)(code.len / (Py_ssize_t)sizeof(struct sock_filter));
    setting.fence.filter = code.buf;
    for (;;) {
        struct request request;
        int fds[MOST], count = receive(setting.control, &request, fds);
        pid_t pid = count > 0 ? fork() : 0;
        if (count > 0 && pid == 0) {
            confine(&setting, &request, fds, count);
            greet();
            return first_frames(); /* with the buffer held: there is no later */
        }
        for (int n = 0; n < count; n++)
            close(fds[n]);
        if (pid < 0)
            PyErr_SetFromErrno(PyExc_OSError);
        if (count <= 0 || pid < 0 || finish(&setting, pid) < 0)
            break;
    }
    PyBuffer_Release(&code);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {{"serve", serve, METH_VARARGS, serve_doc}, {NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_lean", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__lean(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddIntConstant(module, "PROTOCOL", PROTOCOL) < 0)
        Py_CLEAR(module);
    return module;
}
