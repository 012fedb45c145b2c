# The smallest init: resets the machine at once. What is measured with it is the monitor and the kernel.
    .globl _start
_start:
    mov $169, %eax          # reboot(
    mov $0xfee1dead, %edi   #   LINUX_REBOOT_MAGIC1,
    mov $0x28121969, %esi   #   LINUX_REBOOT_MAGIC2,
    mov $0x01234567, %edx   #   LINUX_REBOOT_CMD_RESTART)
    syscall
    hlt                     # never comes here
