/* A stand-in for ipvsadm on a machine whose kernel has no IPVS: it hands its
 * arguments to the benchmark, which keeps the table, and prints the answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	const char *path = getenv("KEEPBEAT_BENCH_TABLE");
	char line[4096] = "ipvsadm";
	size_t n = strlen(line);
	ssize_t got;
	int fd;

	if (!path || strlen(path) >= sizeof(to.sun_path))
		return 1;
	strcpy(to.sun_path, path);
	for (int i = 1; i < argc; i++)
		n += snprintf(line + n, n < sizeof(line) ? sizeof(line) - n : 0, " %s", argv[i]);
	if (n + 1 >= sizeof(line))
		return 1;
	line[n++] = '\n';
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 || write(fd, line, n) != (ssize_t)n)
		return 1;
	/* The end of the answer is the end of the order. */
	while ((got = read(fd, line, sizeof(line))) > 0)
		fwrite(line, 1, got, stdout);
	return got < 0;
}
